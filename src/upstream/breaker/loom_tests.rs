//! The shared word of this very folder under a model checker: every interleaving of a few workers.

use std::sync::Arc;
use std::time::Duration;

#[allow(
    clippy::duplicate_mod,
    reason = "this very file, made of other atomics"
)]
#[path = "shared.rs"]
mod shared;

/// What the word is made of, as the model sees it.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

use super::word::{self, Pass, Word};
use super::{Rule, State};
use shared::Shared;

const RULE: Rule = Rule {
    error_ratio: Some(0.5),
    min_requests: 1,
    window: Duration::from_secs(10),
    open_for: Duration::from_secs(10),
    half_open: 1,
    consecutive: None,
    slow: None,
    observes: false,
};

/// When an opening at 0 is over.
const OVER: u64 = 10_000;

fn trip(shared: &Shared, epoch: u8) -> Option<(Word, Word)> {
    shared.trip(&RULE, epoch, 0, Duration::ZERO)
}

/// What each of these workers made of the word, in every order, and the word at the end.
fn every_way<T: Send + 'static>(
    before: fn(&Shared),
    workers: &'static [fn(&Shared) -> T],
    after: fn(Vec<T>, Word),
) {
    loom::model(move || {
        let shared = Arc::new(Shared::new());
        before(&shared);
        let spawn = |work: &'static fn(&Shared) -> T| {
            let shared = shared.clone();
            loom::thread::spawn(move || work(&shared))
        };
        let all: Vec<_> = workers.iter().map(spawn).collect();
        let said = all.into_iter().map(|one| one.join().expect("no panic"));
        after(said.collect(), shared.read());
    });
}

#[test]
fn of_two_that_find_it_failing_at_once_one_opens_it_and_once() {
    const FINDS: fn(&Shared) -> bool = |shared| trip(shared, 0).is_some();
    every_way(
        |_| {},
        &[FINDS, FINDS],
        |turned, word| {
            assert_eq!(turned.iter().filter(|turned| **turned).count(), 1);
            assert_eq!((word.state, word.epoch, word.openings), (State::Open, 1, 1));
        },
    );
}

#[test]
fn of_all_that_come_when_its_time_is_over_no_more_probe_than_may() {
    const COMES: fn(&Shared) -> Pass = |shared| shared.ask(&RULE, true, OVER).2;
    every_way(
        |shared| {
            trip(shared, 0);
        },
        &[COMES, COMES, COMES],
        |said, word| {
            let probes = said.iter().filter(|pass| **pass == Pass::Probe).count();
            let refused = said.iter().filter(|p| matches!(p, Pass::No(_))).count();
            assert_eq!((probes, refused), (1, 2));
            assert_eq!((word.state, word.epoch, word.out), (State::HalfOpen, 2, 1));
        },
    );
}

/// The probe ends well while a try from before the opening is found out to be bad.
#[test]
fn what_was_asked_before_an_opening_does_not_undo_what_a_probe_has_found() {
    every_way(
        |shared| {
            trip(shared, 0);
            assert_eq!(shared.ask(&RULE, true, OVER).2, Pass::Probe);
        },
        &[
            |shared| {
                shared
                    .probed(2, |word| Some(word.good(&RULE, OVER)))
                    .is_some()
            },
            |shared| trip(shared, 0).is_some(),
        ],
        |turned, word| {
            assert_eq!(turned, [true, false]);
            assert_eq!((word.state, word.epoch), (State::Closed, 3));
        },
    );
}

/// Two probes that disagree: the first to say so decides, and the other is void.
#[test]
fn of_two_probes_that_disagree_the_first_decides() {
    const TWO: Rule = Rule {
        half_open: 2,
        ..RULE
    };
    every_way(
        |shared| {
            trip(shared, 0);
            for _ in 0..2 {
                assert_eq!(shared.ask(&TWO, true, OVER).2, Pass::Probe);
            }
        },
        &[
            |shared| {
                shared
                    .probed(2, |word| Some(word.good(&TWO, OVER)))
                    .is_some()
            },
            |shared| {
                let bad = |word: Word| Some(word.bad(&TWO, OVER, Duration::ZERO));
                shared.probed(2, bad).is_some()
            },
        ],
        |turned, word| {
            assert!(turned[1], "one good one of two does not close it");
            assert_eq!((word.state, word.epoch, word.openings), (State::Open, 3, 2));
        },
    );
}

#[test]
fn an_order_stands_whatever_is_found_out_beside_it() {
    every_way(
        |_| {},
        &[
            |shared| {
                shared.force(Some(State::Closed), 0);
            },
            |shared| {
                trip(shared, 0);
            },
            |shared| {
                shared.ask(&RULE, true, 0);
            },
        ],
        |_, word| assert_eq!((word.state, word.forced), (State::Closed, true)),
    );
}
