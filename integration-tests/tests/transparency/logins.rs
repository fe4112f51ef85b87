//! How sessions begin.
use crate::messages::q;
use crate::stage::Stage;
use crate::transcript::End;
use integration_tests::client::Endpoint;
use integration_tests::raw::RawClient;

#[test]
fn parameters_of_the_startup() {
    let stage = Stage::old();
    let writes = [("writes", vec![q("UPDATE t SET v = 1 WHERE id = 1 RETURNING s"), q("SHOW work_mem")])];
    for parameters in [
        [("options", "-c work_mem=8MB -c DateStyle=German")].as_slice(),
        &[("application_name", "an application")],
        &[("work_mem", "9MB"), ("TimeZone", "Asia/Tokyo")],
        &[("client_encoding", "nonsense")],
        &[("nonsense", "1")],
        &[("options", "-c nonsense=1")],
        &[("search_path", "pg_catalog, public")],
    ] {
        stage.expect_same_with(parameters, End::Query, &writes);
    }
}

#[test]
fn the_newest_server_as_source() {
    Stage::newest().expect_same(&[
        ("writes", vec![q("UPDATE t SET v = 1 WHERE id = 1 RETURNING v"), q("INSERT INTO noisy VALUES (7, 7)")]),
        ("old and new", vec![q("UPDATE t SET v = 5 WHERE id = 1 RETURNING old.v, new.v"), q("DELETE FROM t WHERE id = 2 RETURNING WITH (OLD AS o) o.*")]),
        ("merge", vec![q("MERGE INTO t USING parent p ON p.id = t.id WHEN MATCHED THEN UPDATE SET v = 0 RETURNING merge_action(), t.id")]),
    ]);
}

/// Answers to bytes before the startup, and to a startup of this version: as far as they are the same in each session.
fn begin(place: &Endpoint, version: u32, requests: &[u32]) -> Vec<(u8, usize, Vec<u8>)> {
    let mut client = RawClient::connect(place.port).expect("it listens");
    let mut seen = Vec::new();
    for code in requests {
        client.send(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat()).expect("it reads");
        seen.push((0, 1, client.receive_bytes(1).expect("an answer of one byte")));
    }
    let parameters = format!("user\0{}\0database\0{}\0\0", place.user, place.database);
    let length = parameters.len() as u32 + 8;
    client.send(&[&length.to_be_bytes(), &version.to_be_bytes(), parameters.as_bytes()].concat()).expect("it reads");
    while let Ok(frame) = client.receive() {
        let ready = frame.tag == b'Z';
        let body = if frame.tag == b'K' { Vec::new() } else { frame.body.clone() };
        seen.push((frame.tag, frame.body.len(), body));
        if ready {
            break;
        }
    }
    seen
}

#[test]
fn requests_and_versions() {
    const SSL: u32 = 80_877_103;
    for stage in [Stage::old(), Stage::newest()] {
        for requests in [[].as_slice(), &[SSL]] {
            for version in [0x3_0000, 0x3_0002] {
                let [direct, proxied] = [&stage.direct, &stage.proxied()].map(|place| begin(place, version, requests));
                assert_eq!(direct, proxied, "{requests:?} {version:#x}");
            }
        }
    }
}
