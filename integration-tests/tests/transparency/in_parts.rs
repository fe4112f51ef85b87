//! Portals that give their rows in parts, with more statements in the same batch: the server takes what follows for a part of the
//! same command.
use crate::messages::{Message, bind, close_portal, execute, parse, q, sync};
use crate::stage::Stage;

const AGAIN: [&str; 4] = [
    "UPDATE t SET v = v + 1 WHERE id < 4 RETURNING id, v",
    "DELETE FROM t WHERE id < 4 RETURNING id",
    "INSERT INTO t VALUES (1, 1), (2, 2) ON CONFLICT (id) DO UPDATE SET v = t.v + 100 RETURNING id, v",
    "SELECT id, v FROM t WHERE id < 4 ORDER BY id",
];

/// Each statement behind each one that changes rows, on the same portal or beside it.
#[test]
fn a_batch_goes_on_behind_a_portal_that_has_more_rows() {
    let mut sessions = Vec::new();
    let look = || q("SELECT id, v FROM t ORDER BY id");
    for first in &AGAIN[..3] {
        for then in AGAIN {
            for portals in [["", ""], ["p", "q"]] {
                for limits in [[1, 0], [3, 3], [4, 0]] {
                    let [before, behind] = portals;
                    let [more, all] = limits;
                    let begin = [parse("s", first), parse("u", then), bind(before, "s", &[]), execute(before, more)];
                    let next = [bind(behind, "u", &[]), execute(behind, all)];
                    let parts = |between: &[Message], at_the_end: &[Message]| {
                        [&begin[..], between, &next[..], at_the_end, &[sync(), look()]].concat()
                    };
                    sessions.push(("right behind", parts(&[], &[])));
                    sessions.push(("after two parts", parts(&[execute(before, 1)], &[])));
                    sessions.push(("after a Close", parts(&[close_portal(before)], &[])));
                    let block =
                        [vec![q("BEGIN")], parts(&[], &[execute(before, 1)]), vec![q("COMMIT"), look()]].concat();
                    sessions.push(("in a block, with another part behind it", block));
                }
            }
        }
    }
    Stage::old().expect_same(&sessions);
}
