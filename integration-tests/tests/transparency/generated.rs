//! Generated sessions: directly and through pgshadow they are the same, frame by frame, and leave the same rows.
//!
//! `PGSHADOW_SEED`, `PGSHADOW_SESSION` (the first one) and `PGSHADOW_SESSIONS` (how many) choose others.
use crate::generator::grammar::Grammar;
use crate::generator::{self, Session};
use crate::not_yet::{first_frames, not_yet};
use crate::notation;
use crate::shrink::shrink;
use crate::thief;
use crate::twins::{Twins, alone_with};
use integration_tests::installation::{Installation, setting};
use integration_tests::repeats;
use std::collections::BTreeMap;
use std::time::Instant;

/// So many different sessions are shown.
const SHOWN_MAX: usize = 10;
/// After so many sessions the shadow is compared.
const COMPARED_EVERY: u64 = 12;

/// Sessions on servers of one version, and what was found.
struct Campaign {
    grammar: Grammar,
    wild: bool,
    seed: u64,
    twins: Twins,
    found: Vec<String>,
    /// Sessions by how they differ.
    kinds: BTreeMap<String, u32>,
    excused: BTreeMap<&'static str, u32>,
    compared: usize,
}

impl Campaign {
    fn new(installation: &Installation, wild: bool) -> Campaign {
        Campaign {
            grammar: Grammar::new(installation.major, wild),
            wild,
            seed: number("PGSHADOW_SEED", 1),
            twins: Twins::of(installation, wild),
            found: Vec::new(),
            kinds: BTreeMap::new(),
            excused: BTreeMap::new(),
            compared: 0,
        }
    }

    fn session(&self, number: u64) -> Session {
        generator::session(&self.grammar, self.seed, number, self.wild)
    }

    /// What differs in a session, in the frames or in what it leaves.
    fn differs(&mut self, session: &Session) -> Option<String> {
        let [direct, proxied] = self.twins.transcripts(session);
        let mut difference = direct.difference(&proxied);
        if difference.is_none() {
            match self.twins.states() {
                Ok(states) => return states.map(|states| format!("the same frames, but\n{states}")),
                Err(error) => difference = Some(error.to_string()),
            }
        }
        if let (Some(difference), Some(crashed)) = (&mut difference, self.twins.crashed()) {
            difference.insert_str(0, &format!("{crashed}\n"));
            self.twins = self.twins.again();
        }
        difference
    }

    /// Keeps the smallest session that differs as this one does, if there was none of its kind.
    fn keep(&mut self, number: u64, session: Session, difference: String) {
        if let Some(why) = not_yet(&difference) {
            *self.excused.entry(why).or_default() += 1;
            return;
        }
        let wanted = kind(&difference);
        let again = self.kinds.entry(wanted.clone()).or_default();
        *again += 1;
        if *again > 1 {
            return;
        }
        let (smallest, difference) = self.smallest(session, difference, &wanted);
        let (seed, wild) = (self.seed, self.wild);
        let shown = notation::session(&smallest);
        self.found.push(format!("=== seed {seed}, session {number}, wild {wild}: {shown}{difference}"));
        self.twins = self.twins.again();
    }

    fn smallest(&mut self, session: Session, difference: String, wanted: &str) -> (Session, String) {
        shrink(session, difference, |smaller| self.differs(smaller).filter(|difference| kind(difference) == wanted))
    }

    /// Compares the shadow and begins with a new one, on which nothing is suspect yet.
    fn compare(&mut self, number: u64) {
        let (lost, trusted) = self.twins.lost().expect("the servers are up");
        self.compared += trusted;
        let seed = self.seed;
        self.found
            .extend(lost.map(|lost| format!("=== seed {seed}, up to session {number}: not suspect, but\n{lost}")));
        self.twins = self.twins.again();
    }
}

/// What a difference begins with on both sides; of two sessions that differ in the same way one is enough.
fn kind(difference: &str) -> String {
    if difference.contains("crashed") {
        return difference.lines().next().unwrap_or_default().to_owned();
    }
    first_frames(difference)
        .map(|line| line.chars().filter(|c| !c.is_ascii_digit()).take(100).collect::<String>())
        .join("\n")
}

/// A number from the environment, for whoever looks for something.
fn number(name: &str, otherwise: u64) -> u64 {
    setting(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Plays `count` sessions (many times more in `make conform`) and fails with the smallest ones that differ.
fn play(installation: &Installation, wild: bool, count: u64) {
    let _alone = alone_with(installation);
    let started = Instant::now();
    let mut campaign = Campaign::new(installation, wild);
    let first = number("PGSHADOW_SESSION", 1);
    let count = number("PGSHADOW_SESSIONS", count * u64::from(repeats()));
    for number in first..first + count {
        let session = campaign.session(number);
        if let Some(difference) = campaign.differs(&session) {
            campaign.keep(number, session, difference);
        }
        if !wild && number % COMPARED_EVERY == 0 {
            campaign.compare(number);
        }
        if campaign.found.len() >= SHOWN_MAX {
            break;
        }
    }
    let Campaign { found, kinds, excused, compared, .. } = campaign;
    eprintln!("{count} sessions on {} in {:?}, {compared} tables compared", installation.version, started.elapsed());
    eprintln!("not yet: {excused:#?}\nfound: {kinds:#?}");
    assert!(wild || compared > 0 || count < COMPARED_EVERY, "no table was left to be compared");
    assert!(found.is_empty(), "{} sessions differ\n{}", found.len(), found.join("\n"));
}

#[test]
fn on_the_older_server() {
    play(Installation::old(), true, 60);
}

#[test]
fn on_the_newest_server() {
    play(Installation::newest(), true, 60);
}

#[test]
fn on_the_older_server_with_its_shadow() {
    play(Installation::old(), false, 36);
}

#[test]
fn on_the_newest_server_with_its_shadow() {
    play(Installation::newest(), false, 36);
}

#[test]
fn one_notice_that_is_lost_is_found_and_its_session_made_small() {
    let _alone = alone_with(Installation::old());
    let mut campaign = Campaign::new(Installation::old(), true);
    let thief = thief::in_front_of(campaign.twins.proxied_port());
    campaign.twins.proxied_through(thief);
    let found = (1..100).find_map(|number| {
        let session = campaign.session(number);
        let difference = campaign.differs(&session).filter(|difference| not_yet(difference).is_none())?;
        Some((session, difference))
    });
    let (session, difference) = found.expect("one of so many sessions has a notice");
    assert!(first_frames(&difference)[0].starts_with("  direct  N"), "{difference}");
    let wanted = kind(&difference);
    let (smallest, difference) = campaign.smallest(session, difference, &wanted);
    assert!(smallest.steps.len() <= 3 && difference.contains("  direct  N"), "{}", notation::session(&smallest));
}
