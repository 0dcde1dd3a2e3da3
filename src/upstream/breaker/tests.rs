//! The machine by sweeps over seeds with injected time, and the shared word under threads.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::telemetry::handles::BREAKER;
use crate::upstream::balance::Random;

const GOOD: Outcome = Outcome::Whole;
const BAD: Outcome = Outcome::Bad(Duration::ZERO);

fn rule() -> Rule {
    Rule {
        error_ratio: Some(0.5),
        min_requests: 10,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(10),
        half_open: 3,
        consecutive: None,
        slow: None,
        observes: false,
    }
}

/// One breaker with a clock of its own.
struct Lab {
    breaker: Breaker,
    rule: Rule,
    now: Instant,
}

impl Lab {
    fn new(rule: Rule) -> Lab {
        let now = crate::clock::now();
        let breaker = Breaker::new(2, now);
        Lab { breaker, rule, now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ask(&self, safe: bool) -> Option<Ticket> {
        match self.breaker.ask(&self.rule, safe, self.now).0 {
            Asked::Granted(ticket) => Some(ticket),
            Asked::Refused(_) => None,
        }
    }

    fn tell(&self, ticket: Ticket, outcome: Outcome) -> Option<Change> {
        if matches!(outcome, Outcome::Whole | Outcome::Broken) {
            let headers = Outcome::Answered(Duration::from_millis(1));
            let told = self.breaker.tell(&self.rule, ticket, headers, 0, self.now);
            assert_eq!(told, None, "good headers change nothing");
        }
        self.breaker.tell(&self.rule, ticket, outcome, 0, self.now)
    }

    fn try_once(&self, outcome: Outcome) -> Option<Change> {
        self.ask(true).and_then(|ticket| self.tell(ticket, outcome))
    }

    /// Fails until it opens; how many tries that took.
    fn open(&mut self) -> usize {
        for n in 1..10_000 {
            if self.try_once(BAD).is_some() {
                assert_eq!(self.state(), State::Open);
                return n;
            }
        }
        panic!("it does not open");
    }

    fn state(&self) -> State {
        self.breaker.state(self.now)
    }

    fn left(&self) -> Duration {
        let left = self.breaker.refuses(&self.rule, self.now);
        left.unwrap_or_default()
    }
}

#[test]
fn the_words_are_those_of_the_metrics() {
    let words: Vec<&str> = State::ALL.iter().map(|(_, word)| *word).collect();
    assert_eq!(words, BREAKER);
    for (i, (state, _)) in State::ALL.iter().enumerate() {
        assert_eq!(*state as usize, i);
    }
}

proptest! {
    #[test]
    fn a_word_is_what_was_packed(
        state in 0usize..3, forced: bool, epoch in 0u8..64, openings in 0u8..=4,
        out in 0u8..=100, good in 0u8..=100, at in 0u64..1 << 38,
    ) {
        let state = State::ALL[state].0;
        let word = Word { state, forced, epoch, openings, out, good, at };
        prop_assert_eq!(Word::unpack(word.pack()), word);
    }

    #[test]
    fn a_share_is_counted_over_the_window_and_nothing_older(
        steps in prop::collection::vec((0u64..700, any::<bool>()), 1..200),
        length in 100u64..20_000,
    ) {
        let mut window = Window::default();
        let mut now = 0;
        let mut all = Vec::new();
        for (step, failed) in steps {
            now += step;
            all.push((now, failed));
            window.add(Counts { total: 1, failed: failed.into(), slow: 0 }, length, now);
            let within = |age: u64| {
                let young = all.iter().filter(|(at, _)| at + age > now);
                let failed = young.clone().filter(|(_, failed)| *failed).count() as u64;
                (young.count() as u64, failed)
            };
            // The oldest bucket goes as a whole, at most a tenth of the window early.
            let (least, most) = (within(length / 10 * 9), within(length));
            let sum = window.sum(length, now);
            prop_assert!(least.0 <= sum.total && sum.total <= most.0, "{:?}", (least, sum, most));
            prop_assert!(least.1 <= sum.failed && sum.failed <= most.1);
        }
    }
}

#[test]
fn it_opens_at_the_share_and_not_below_nor_before_enough_tries() {
    let lab = Lab::new(rule());
    for n in 0..9 {
        assert_eq!(lab.try_once(BAD), None, "{n} tries are too few");
    }
    let change = lab.try_once(BAD).expect("the tenth");
    assert_eq!(change.why, Why::Failures { failed: 10, of: 10 });
    let mut lab = Lab::new(rule());
    for _ in 0..1_000 {
        assert_eq!(lab.try_once(GOOD), None);
        assert_eq!(lab.try_once(GOOD), None);
        assert_eq!(lab.try_once(BAD), None, "a third is less than half");
        lab.pass(Duration::from_millis(20));
    }
    assert!(lab.ask(false).is_some(), "closed passes everything");
}

#[test]
fn a_row_of_failures_opens_it_whatever_the_share() {
    let consecutive = Some(5);
    let lab = Lab::new(Rule {
        error_ratio: None,
        consecutive,
        ..rule()
    });
    for _ in 0..100 {
        assert_eq!(lab.try_once(GOOD), None);
        for _ in 0..4 {
            assert_eq!(lab.try_once(BAD), None);
        }
    }
    assert_eq!(lab.try_once(BAD).map(|c| c.why), Some(Why::Row(5)));
}

#[test]
fn slow_answers_open_it_and_a_slow_probe_opens_it_again() {
    let over = Duration::from_secs(1);
    let slow = Some(Slow { ratio: 0.5, over });
    let mut lab = Lab::new(Rule {
        error_ratio: None,
        slow,
        ..rule()
    });
    assert_eq!((0..50).find_map(|_| lab.try_once(BAD)), None);
    let mut lab2 = Lab::new(lab.rule);
    let late = Outcome::Answered(over * 2);
    let change = (0..50).find_map(|_| lab2.try_once(late)).expect("all slow");
    assert_eq!(change.why, Why::Slow { slow: 10, of: 10 });
    lab2.pass(Duration::from_secs(10));
    assert_eq!(lab2.try_once(late).map(|c| c.to), Some(State::Open));
    lab.pass(Duration::ZERO);
}

#[test]
fn answers_that_break_off_open_it_and_long_ones_weigh_as_much_as_short_ones() {
    let mut lab = Lab::new(rule());
    let change = (0..50).find_map(|_| lab.try_once(Outcome::Broken));
    let of = Why::Failures { failed: 10, of: 10 };
    assert_eq!(change.map(|c| c.why), Some(of));
    lab = Lab::new(Rule {
        consecutive: Some(3),
        ..rule()
    });
    let row = (0..50).find_map(|_| lab.try_once(Outcome::Broken));
    assert_eq!(row.map(|c| c.why), Some(Why::Row(3)));
    lab = Lab::new(rule());
    let headers = Outcome::Answered(Duration::ZERO);
    let long = (0..90)
        .filter_map(|_| lab.ask(true))
        .map(|t| lab.tell(t, headers));
    assert_eq!(long.flatten().count(), 0);
    assert_eq!(
        (0..89).find_map(|_| lab.try_once(BAD)),
        None,
        "less than half"
    );
}

#[test]
fn m08_of_a_thousand_that_wait_only_the_probes_pass() {
    let mut lab = Lab::new(rule());
    lab.open();
    lab.pass(Duration::from_millis(9_999));
    assert!((0..1_000).all(|_| lab.ask(true).is_none()));
    lab.pass(Duration::from_millis(1));
    assert!(lab.ask(false).is_none(), "a POST is no probe");
    assert_eq!(lab.state(), State::HalfOpen);
    let probes: Vec<Ticket> = (0..1_000).filter_map(|_| lab.ask(true)).collect();
    assert_eq!(probes.len(), 3);
    assert_eq!(lab.tell(probes[0], GOOD), None);
    assert!(lab.ask(true).is_none(), "one good, two out");
    assert_eq!(lab.tell(probes[1], Outcome::Nothing), None);
    let again = lab
        .ask(true)
        .expect("what came to nothing gave its place back");
    assert_eq!(lab.tell(probes[2], GOOD), None);
    let closed = lab.tell(again, GOOD).expect("the third good one");
    assert_eq!((closed.to, closed.why), (State::Closed, Why::ProbesPassed));
    assert_eq!(lab.try_once(BAD), None, "what failed before is forgotten");
}

#[test]
fn one_bad_probe_opens_it_again_for_longer_and_longer() {
    let mut lab = Lab::new(rule());
    lab.open();
    let mut lengths = Vec::new();
    for _ in 0..6 {
        lab.pass(lab.left());
        let probe = lab.ask(true).expect("its time is over");
        assert_eq!(lab.tell(probe, BAD).map(|c| c.why), Some(Why::ProbeFailed));
        lengths.push(lab.left().as_secs());
    }
    assert_eq!(lengths, [20, 40, 80, 80, 80, 80]);
    lab.pass(lab.left());
    (0..3).for_each(|_| _ = lab.try_once(GOOD));
    assert_eq!(lab.state(), State::Closed);
    lab.open();
    assert_eq!(
        lab.left().as_secs(),
        80,
        "it did not stay closed for a while"
    );
    lab.pass(lab.left());
    (0..3).for_each(|_| _ = lab.try_once(GOOD));
    lab.pass(Duration::from_secs(80));
    lab.open();
    assert_eq!(lab.left().as_secs(), 10, "it did");
}

#[test]
fn who_asks_to_be_left_alone_is_left_alone_within_reason() {
    let opened_by = |open_for: u64, stay_away: u64| {
        let open_for = Duration::from_secs(open_for);
        let lab = Lab::new(Rule {
            consecutive: Some(1),
            open_for,
            ..rule()
        });
        lab.try_once(Outcome::Bad(Duration::from_secs(stay_away)));
        lab.left().as_secs()
    };
    assert_eq!(opened_by(10, 3), 10);
    assert_eq!(opened_by(10, 60), 60);
    assert_eq!(opened_by(10, 1_000_000), 100);
    assert_eq!(opened_by(60, 1_000_000), 300);
    assert_eq!(opened_by(600, 3), 600);
}

#[test]
fn where_only_posts_come_one_probes_after_a_quiet_time() {
    let mut lab = Lab::new(rule());
    lab.open();
    lab.pass(Duration::from_secs(10));
    let mut probes = 0;
    let mut waited = Duration::ZERO;
    while lab.state() != State::Closed {
        if let Some(ticket) = lab.ask(false) {
            probes += 1;
            lab.tell(ticket, GOOD);
        }
        assert!(lab.state() == State::Closed || lab.ask(false).is_none());
        lab.pass(Duration::from_secs(1));
        waited += Duration::from_secs(1);
        assert!(waited < Duration::from_secs(60), "it never closes");
    }
    assert_eq!(probes, 3);
}

#[test]
fn probes_that_never_end_do_not_hold_it_for_ever_and_keep_their_say() {
    let mut lab = Lab::new(rule());
    lab.open();
    lab.pass(Duration::from_secs(10));
    let lost: Vec<Ticket> = (0..3).filter_map(|_| lab.ask(true)).collect();
    assert_eq!(lost.len(), 3);
    lab.pass(Duration::from_secs(9));
    assert!(lab.ask(true).is_none());
    lab.pass(Duration::from_secs(1));
    assert!(lab.ask(true).is_some(), "a place after a quiet time");
    assert_eq!(lab.tell(lost[0], BAD).map(|c| c.to), Some(State::Open));
}

#[test]
fn a_verdict_from_before_a_change_is_worth_nothing() {
    let mut lab = Lab::new(rule());
    let early: Vec<Ticket> = (0..100).filter_map(|_| lab.ask(true)).collect();
    lab.open();
    lab.pass(Duration::from_secs(10));
    let probe = lab.ask(true).expect("half-open");
    for ticket in &early[..50] {
        assert_eq!(lab.tell(*ticket, BAD), None);
        assert_eq!(lab.state(), State::HalfOpen);
    }
    lab.tell(probe, GOOD);
    (0..2).for_each(|_| _ = lab.try_once(GOOD));
    assert_eq!(lab.state(), State::Closed);
    for ticket in &early[50..] {
        assert_eq!(lab.tell(*ticket, BAD), None, "asked before it opened");
    }
}

#[test]
fn what_an_operator_holds_stays_until_it_is_let_go() {
    let mut lab = Lab::new(rule());
    let change = lab.breaker.force(Some(State::Open), lab.now);
    assert_eq!(change.map(|c| c.why), Some(Why::Forced));
    lab.pass(Duration::from_hours(24));
    assert!(lab.ask(true).is_none());
    assert!(lab.breaker.status(&lab.rule, lab.now).forced);
    lab.breaker.force(None, lab.now);
    assert_eq!((0..9).filter_map(|_| lab.ask(true)).count(), 3, "it probes");
    lab.breaker.force(Some(State::Closed), lab.now);
    assert!((0..1_000).all(|_| lab.try_once(BAD).is_none()));
    lab.breaker.force(None, lab.now);
    assert_eq!(lab.open(), 1, "all it saw meanwhile was bad");
}

/// After any step: never more probes out than places (but one after each quiet time), open never
/// passes, and every change is one that the machine knows.
#[test]
fn any_row_of_events_keeps_the_invariants() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let half_open = 1 + (random.bits() % 5) as u8;
        let mut lab = Lab::new(Rule {
            half_open,
            ..rule()
        });
        let mut out: Vec<Ticket> = Vec::new();
        let mut changes = 0;
        let begun = lab.now;
        for _ in 0..2_000 {
            lab.pass(Duration::from_millis(random.bits() % 400));
            let before = lab.state();
            if random.unit() < 0.6 {
                let quiet = lab.breaker.word.read();
                let passed = lab.ask(random.unit() < 0.7);
                if let Some(ticket) = passed {
                    assert_ne!(before, State::Open, "seed {seed}");
                    out.push(ticket);
                }
                let word = lab.breaker.word.read();
                if word.state == State::HalfOpen {
                    assert!(
                        word.out + word.good <= half_open.max(quiet.good + 1),
                        "seed {seed}"
                    );
                }
            } else if !out.is_empty() {
                let ticket = out.swap_remove((random.bits() % out.len() as u64) as usize);
                let well = (lab.now - begun).as_secs() / 60 % 2 == 1;
                let outcome = match random.unit() {
                    x if x < 0.1 => Outcome::Nothing,
                    x if well || x < 0.3 => GOOD,
                    _ => BAD,
                };
                let change = lab.tell(ticket, outcome);
                changes += usize::from(change.is_some());
                match change.map(|c| c.to) {
                    Some(State::Open) => assert_eq!(outcome, BAD, "seed {seed}"),
                    Some(State::Closed) => assert_eq!(outcome, GOOD, "seed {seed}"),
                    Some(State::HalfOpen) => panic!("seed {seed}: a verdict begins no probing"),
                    None => {}
                }
            }
        }
        assert!(changes >= 2, "seed {seed}: it opens, and closes");
    }
}

/// M09: up and down every second; a change of state at most as often as openings last.
#[test]
fn m09_a_flapping_upstream_does_not_flap_its_breaker() {
    let mut lab = Lab::new(rule());
    let mut openings = 0;
    let mut asked = 0;
    let begun = lab.now;
    for n in 0..60_000u64 {
        lab.pass(Duration::from_millis(10));
        let up = (lab.now - begun).as_secs().is_multiple_of(2);
        let (granted, change) = lab.breaker.ask(&lab.rule, true, lab.now);
        assert!(change.is_none_or(|c| c.to == State::HalfOpen), "{n}");
        let Asked::Granted(ticket) = granted else {
            continue;
        };
        asked += 1;
        let change = lab.tell(ticket, if up { GOOD } else { BAD });
        openings += usize::from(change.is_some_and(|c| c.to == State::Open));
    }
    // Ten minutes: at eighty seconds an opening, and the first ones shorter.
    assert!((5..=14).contains(&openings), "{openings}");
    assert!(asked < 60_000 / 4, "{asked}");
}

#[test]
fn between_threads_no_place_is_given_twice_and_none_is_lost() {
    for round in 0..200 {
        let mut lab = Lab::new(Rule {
            half_open: 5,
            ..rule()
        });
        lab.open();
        lab.pass(Duration::from_secs(10));
        let (out, most, ends) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let probe = |thread: usize| {
            let mut random = Random::new(round * 8 + thread as u64);
            for _ in 0..200 {
                let Some(ticket) = lab.ask(true).filter(|t| t.probe) else {
                    continue;
                };
                most.fetch_max(out.fetch_add(1, SeqCst) + 1, SeqCst);
                std::hint::spin_loop();
                out.fetch_sub(1, SeqCst);
                let outcome = match random.unit() < 0.9 {
                    true => Outcome::Nothing,
                    false => GOOD,
                };
                let change = lab
                    .breaker
                    .tell(&lab.rule, ticket, outcome, thread, lab.now);
                ends.fetch_add(change.is_some().into(), SeqCst);
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let probe = &probe;
                scope.spawn(move || probe(thread));
            }
        });
        assert!(most.load(SeqCst) <= 5, "round {round}");
        assert!(ends.load(SeqCst) <= 1, "round {round}: it closed twice");
        let word = lab.breaker.word.read();
        assert_eq!(word.out, 0, "round {round}: a place is lost");
        assert_eq!(word.state == State::Closed, ends.load(SeqCst) == 1);
    }
}

#[test]
fn between_threads_it_opens_once() {
    for _ in 0..100 {
        let lab = Lab::new(rule());
        let opened = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (lab, opened) = (&lab, &opened);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let Some(ticket) = lab.ask(true) else { return };
                        let told = lab.breaker.tell(&lab.rule, ticket, BAD, thread, lab.now);
                        opened.fetch_add(told.is_some().into(), SeqCst);
                    }
                });
            }
        });
        assert_eq!(opened.load(SeqCst), 1);
    }
}
