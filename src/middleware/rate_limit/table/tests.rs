//! What threads do to the table at once: every interleaving of a few steps under a model checker,
//! and many threads on the real one, counted exactly.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// GCRA by hand, to judge with.
fn gcra(now: u64, burst: u64) -> impl Fn(Option<u64>) -> Result<((), u64), ()> {
    move |tat| {
        let tat = tat.unwrap_or(now);
        if now < tat.saturating_sub((burst - 1) * UNIT) {
            return Err(());
        }
        Ok(((), tat.max(now) + UNIT))
    }
}

fn admits<W: Word, L: Stripe, const N: usize>(
    table: &Table<W, L, N>,
    key: u64,
    now: u64,
    burst: u64,
) -> (bool, Place) {
    let judged = table.judge(key, now, gcra(now, burst));
    (judged.said.is_ok(), judged.place)
}

/// A hash that spreads as the real one does.
fn hash(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[test]
fn a_key_gets_its_burst_and_then_its_rate() {
    let table: Table = Table::new(100);
    let now = 1000 * UNIT;
    let count = |now| (0..10).filter(|_| admits(&table, 7, now, 3).0).count();
    assert_eq!(count(now), 3);
    assert_eq!(count(now + UNIT - 1), 0);
    assert_eq!(count(now + UNIT), 1);
    assert_eq!(count(now + 100 * UNIT), 3);
}

#[test]
fn a_full_table_gives_up_only_cells_whose_time_is_past() {
    let table: Table = Table::new(64);
    let now = 1000 * UNIT;
    let keys: Vec<u64> = (0..10_000).map(hash).collect();
    let places: Vec<Place> = keys
        .iter()
        .map(|key| admits(&table, *key, now, 1).1)
        .collect();
    let own = places.iter().filter(|place| **place == Place::Own).count();
    assert_eq!(own, table.cells(), "every cell is used");
    assert_eq!(table.used(now), table.cells());
    assert!(!places.contains(&Place::Evicted));
    for (key, place) in keys.iter().zip(&places) {
        let (again, at) = admits(&table, *key, now, 1);
        assert!(
            !again
                && at
                    == if *place == Place::Own {
                        Place::Own
                    } else {
                        Place::Overflow
                    }
        );
    }
    let later = now + UNIT;
    assert_eq!(
        admits(&table, hash(20_000), later, 1).1,
        Place::Overflow,
        "just not yet past"
    );
    let later = later + 1;
    assert_eq!(
        admits(&table, hash(20_000), later, 1),
        (true, Place::Evicted)
    );
    assert_eq!(table.used(later), 1);
}

#[test]
fn a_cell_as_good_as_the_overflow_is_what_a_look_sees() {
    let table: Table = Table::new(1);
    let now = 1000 * UNIT;
    assert_eq!(table.peek(5, now), None);
    for key in 0..8 {
        assert!(admits(&table, hash(key), now, 1).0);
    }
    assert_eq!(table.peek(hash(3), now), Some(now + UNIT));
    assert_eq!(
        table.peek(hash(99), now),
        None,
        "nobody used the overflow yet"
    );
    assert_eq!(admits(&table, hash(99), now, 1), (true, Place::Overflow));
    assert_eq!(table.peek(hash(100), now), Some(now + UNIT));
    table.refund(hash(99), Place::Overflow);
    assert_eq!(admits(&table, hash(100), now, 1), (true, Place::Overflow));
    table.refund(hash(3), Place::Own);
    assert_eq!(admits(&table, hash(3), now, 1), (true, Place::Own));
}

#[test]
fn as_many_keys_as_it_has_room_for_find_room() {
    let table: Table = Table::new(100_000);
    let own = |key: &u64| admits(&table, hash(*key), 1000 * UNIT, 1).1 == Place::Own;
    assert_eq!((0..100_000).filter(own).count(), 100_000);
}

/// Distinct keys without end, some of which never stop: those that abuse are held to their rate,
/// whoever pushes.
#[test]
fn k03_nobody_gets_a_second_burst_by_pushing_others_out() {
    let table: Table = Table::new(1_000);
    let (burst, keys) = (5, 200_000);
    let mut abusers: HashMap<u64, u64> = (0..50).map(|n| (hash(n), 0)).collect();
    let start = 1000 * UNIT;
    let mut now = start;
    for (key, count) in &mut abusers {
        *count += u64::from(admits(&table, *key, now, burst).0);
    }
    for number in 0..keys {
        // 3000 new keys in the time of one admission: more than there are cells
        now += UNIT / 3_000;
        admits(&table, hash(1_000 + number), now, burst);
        if number % 100 == 0 {
            for (key, count) in &mut abusers {
                *count += u64::from(admits(&table, *key, now, burst).0);
            }
        }
    }
    let most = burst + (now - start) / UNIT;
    for count in abusers.values() {
        assert!((most - 1..=most).contains(count), "{count} of {most}");
    }
}

/// Threads that all ask at one instant: exactly the burst of each key, wherever they meet.
#[test]
fn k08_threads_that_ask_at_one_instant_get_exactly_the_burst() {
    const THREADS: usize = 4;
    for round in 0..20 {
        let table: Table = Table::new(400);
        let (now, burst, keys) = (1000 * UNIT, 7, 100);
        let admitted: Vec<AtomicUsize> = (0..keys).map(|_| AtomicUsize::new(0)).collect();
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (table, admitted, together) = (&table, &admitted, &together);
                scope.spawn(move || {
                    together.wait();
                    for step in 0..keys * 10 {
                        let at = (step * (thread + 3) + thread) % keys;
                        let key = hash((round * 1_000 + at) as u64);
                        if admits(table, key, now, burst).0 {
                            admitted[at].fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let counts: Vec<usize> = admitted.iter().map(|n| n.load(Relaxed)).collect();
        let enough =
            |at: usize| (0..THREADS).all(|t| gcd(t + 3, keys) == 1 || at.is_multiple_of(t + 3));
        for (at, count) in counts.iter().enumerate() {
            assert!(*count <= 7, "{count}");
            assert!(!enough(at) || *count == 7, "{count} at {at}");
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Threads that push each other's keys out of a tiny table while time goes on: no key gets more
/// than its burst and its rate from a cell of its own.
#[test]
fn threads_that_push_each_other_out_get_no_more_than_their_rate() {
    const KEYS: usize = 40;
    let table: Table = Table::new(16);
    let time = AtomicU64::new(1000 * UNIT);
    let own: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
    let shared = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (table, time, own, shared) = (&table, &time, &own, &shared);
            scope.spawn(move || {
                for step in 0..50_000 {
                    let now = time.fetch_add(UNIT / 200, Relaxed);
                    let at = (step * (2 * thread + 1) + step / 97) % KEYS;
                    match admits(table, hash(at as u64), now, 2) {
                        (true, Place::Overflow) => drop(shared.fetch_add(1, Relaxed)),
                        (true, _) => drop(own[at].fetch_add(1, Relaxed)),
                        (false, _) => {}
                    }
                }
            });
        }
    });
    let most = 2 + usize::try_from(time.load(Relaxed) / UNIT).expect("small") - 1000;
    for count in own.iter().chain([&shared]) {
        let count = count.load(Relaxed);
        assert!(count <= most + 1, "{count} of {most}");
    }
}

mod model {
    use loom::sync::{Arc, Mutex as Checked, atomic};
    use loom::thread;

    use super::*;

    impl Word for atomic::AtomicU64 {
        fn zeroed(count: usize) -> Box<[Self]> {
            (0..count).map(|_| atomic::AtomicU64::new(0)).collect()
        }
        fn load(&self) -> u64 {
            atomic::AtomicU64::load(self, Acquire)
        }
        fn store(&self, value: u64) {
            atomic::AtomicU64::store(self, value, Release);
        }
        fn swap(&self, from: u64, to: u64) -> bool {
            self.compare_exchange(from, to, AcqRel, Acquire).is_ok()
        }
    }

    impl Stripe for Checked<()> {
        fn several(count: usize) -> Box<[Self]> {
            (0..count).map(|_| Checked::new(())).collect()
        }
        fn hold<T>(&self, work: impl FnOnce() -> T) -> T {
            let _held = self.lock().expect("nobody panics");
            work()
        }
    }

    /// One bucket of two cells.
    type Small = Table<atomic::AtomicU64, Checked<()>, 2>;

    const NOW: u64 = 1000 * UNIT;

    /// Every way in which these may go on at once, each being interrupted up to three times.
    fn every_way(before: fn(&Small), threads: &'static [fn(&Small)], after: fn(&Small)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let table = Arc::new(Small::new(1));
            before(&table);
            let all = threads.iter().map(|run| {
                let table = table.clone();
                thread::spawn(move || run(&table))
            });
            let all: Vec<_> = all.collect();
            all.into_iter().for_each(|t| t.join().expect("no panic"));
            after(&table);
        });
    }

    fn charge(table: &Small, key: u64, now: u64) -> (bool, Place) {
        admits(table, key, now, 2)
    }

    #[test]
    fn two_that_bring_the_same_new_key_share_a_cell() {
        const BRING: fn(&Small) = |table| assert!(charge(table, 1, NOW).0);
        every_way(
            |_| {},
            &[BRING, BRING],
            |table| {
                assert_eq!(table.peek(1, NOW), Some(NOW + 2 * UNIT));
                assert_eq!(table.used(NOW), 1);
            },
        );
    }

    #[test]
    fn two_that_bring_different_keys_get_a_cell_each() {
        every_way(
            |_| {},
            &[
                |t| assert!(charge(t, 1, NOW).0),
                |t| assert!(charge(t, 2, NOW).0),
            ],
            |table| {
                assert_eq!(table.peek(1, NOW), Some(NOW + UNIT));
                assert_eq!(table.peek(2, NOW), Some(NOW + UNIT));
            },
        );
    }

    /// Key 1 is whole again when key 3 needs its cell, and comes back at that very time.
    #[test]
    fn a_key_that_is_charged_while_it_is_pushed_out_is_charged_once_and_no_other() {
        every_way(
            |table| {
                charge(table, 1, NOW - 10 * UNIT);
                charge(table, 2, NOW);
            },
            &[
                |table| assert!(charge(table, 1, NOW).0),
                |table| assert!(charge(table, 3, NOW).0),
            ],
            |table| {
                assert_eq!(table.peek(2, NOW), Some(NOW + UNIT));
                let (one, three) = (table.peek(1, NOW), table.peek(3, NOW));
                assert_eq!((one, three), (Some(NOW + UNIT), Some(NOW + UNIT)));
                assert_eq!(table.used(NOW), 2);
                assert_eq!(
                    Word::load(&table.overflow[0]),
                    NOW + UNIT,
                    "one of them had no room"
                );
            },
        );
    }

    #[test]
    fn a_refund_beside_a_charge_leaves_the_charge() {
        every_way(
            |table| assert!(charge(table, 1, NOW).0),
            &[
                |table| table.refund(1, Place::Own),
                |table| assert!(charge(table, 1, NOW).0),
            ],
            |table| assert_eq!(table.peek(1, NOW), Some(NOW + UNIT)),
        );
    }

    /// Two that come back, and one new that takes the only cell that is whole again.
    #[test]
    fn a_key_that_comes_back_twice_while_it_is_pushed_out_has_one_cell() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(1);
        model.check(|| {
            let table = Arc::new(Small::new(1));
            charge(&table, 1, NOW - 10 * UNIT);
            charge(&table, 2, NOW - 10 * UNIT);
            let run = |key: u64| {
                let table = table.clone();
                thread::spawn(move || charge(&table, key, NOW))
            };
            let all = [run(1), run(1), run(3)];
            let all = all.map(|t| t.join().expect("no panic"));
            assert!(all.iter().all(|(admitted, _)| *admitted));
            assert_eq!(table.peek(1, NOW), Some(NOW + 2 * UNIT));
            assert_eq!(table.used(NOW), 2);
        });
    }
}
