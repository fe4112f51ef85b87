//! Random histories that can be run again by their seed, and the order in which their rows arrived.
use std::collections::HashMap;

/// Random numbers from a seed; the same on every machine.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// A sequence of its own for each pair of numbers.
    pub fn new(seed: u64, stream: u64) -> Dice {
        Dice { state: seed.wrapping_mul(7919).wrapping_add(stream) }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        let span = u64::from(high.abs_diff(low)) + 1;
        low + i32::try_from(self.next() % span).expect("below the span")
    }

    /// True in this many of a hundred cases.
    pub fn percent(&mut self, share: i32) -> bool {
        self.between(1, 100) <= share
    }

    /// An index into a list of this length.
    pub fn below(&mut self, length: usize) -> usize {
        usize::try_from(self.next() % length as u64).expect("below the length")
    }

    /// One of the list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Pairs of writes of one row, one after the other, whose tokens fall: in the order in which they were applied, and in
/// the order in which the primary's replies came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inversions {
    /// Rows in the trace.
    pub rows: usize,
    /// By order of apply: must be none.
    pub applied: usize,
    /// By order of reply: what a mirror that follows it would do wrong.
    pub replied: usize,
}

/// One line of the trace.
#[derive(Debug, Clone)]
struct Line<'a> {
    row: (&'a str, &'a str, u64),
    token: u64,
    replied: u64,
    applied: u64,
    /// Of pgshadow: one more with each start.
    life: u64,
}

impl Inversions {
    /// Counts them in what pgshadow wrote with `[test] trace`. Rows without a key are nobody's: they have no order.
    pub fn of(trace: &str) -> Inversions {
        let mut lines: Vec<Line<'_>> = trace.lines().map(read).collect();
        // Lines come in the order of apply. A pgshadow that was started again counts from the beginning; the first entries may
        // have had no rows.
        let (mut life, mut last) = (0, 0);
        for line in &mut lines {
            life += u64::from(line.applied < last);
            last = line.applied;
            line.life = life;
        }
        lines.retain(|line| !line.row.1.is_empty());
        lines.sort_by_key(|line| (line.life, line.applied));
        let applied = falling(&lines);
        lines.sort_by_key(|line| (line.life, line.replied));
        Inversions { rows: lines.len(), applied, replied: falling(&lines) }
    }
}

fn read(line: &str) -> Line<'_> {
    let fields: Vec<_> = line.split('\t').collect();
    let [table, key, epoch, token, _xid, _sequence, replied, applied] = fields[..] else { panic!("trace: {line}") };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("trace: {line}"));
    let row = (table, key, number(epoch));
    Line { row, token: number(token), replied: number(replied), applied: number(applied), life: 0 }
}

fn falling(lines: &[Line<'_>]) -> usize {
    let mut last = HashMap::new();
    lines.iter().filter(|line| last.insert(line.row, line.token).is_some_and(|before| line.token < before)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falling_tokens_of_one_row_are_counted_in_both_orders() {
        // Columns: table, key, epoch, token, xid, sequence, reply, apply.
        let trace = "t\t01.\t1\t10\t7\t1\t2\t1\nt\t01.\t1\t20\t8\t2\t1\t2\nt\t02.\t1\t5\t9\t3\t3\t3\nt\t01.\t2\t1\t3\t4\t4\t4\n";
        assert_eq!(Inversions::of(trace), Inversions { rows: 4, applied: 0, replied: 1 });
    }

    #[test]
    fn a_second_life_counts_again_and_rows_without_a_key_have_no_order() {
        let trace = "t\t01.\t1\t10\t7\t1\t1\t1\nt\t01.\t1\t20\t8\t2\t2\t3\nt\t01.\t1\t30\t9\t3\t1\t2\nk\t\t1\t40\t10\t4\t2\t2\nk\t\t1\t5\t6\t5\t3\t3\n";
        assert_eq!(Inversions::of(trace), Inversions { rows: 3, applied: 0, replied: 0 });
    }

    #[test]
    fn dice_are_fair_enough_and_repeatable() {
        let (mut one, mut two) = (Dice::new(1, 2), Dice::new(1, 2));
        let throws: Vec<_> = (0..6000).map(|_| one.between(1, 6)).collect();
        assert!((1..=6).all(|side| throws.iter().filter(|throw| **throw == side).count() > 800));
        assert!(throws.iter().all(|throw| *throw == two.between(1, 6)));
    }
}
