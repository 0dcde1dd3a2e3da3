//! Properties of choosing, over seeded sweeps.

use super::*;

fn seen(usable: bool, priority: u8, near: bool) -> Seen {
    Seen {
        barred: false,
        usable,
        priority,
        near,
        weight: 1.0,
    }
}

fn idle(_: usize) -> Load {
    Load {
        in_flight: 0,
        latency: Some(1e6),
    }
}

fn picker(weights: &[f64]) -> Picker {
    let seen: Vec<Seen> = weights
        .iter()
        .map(|w| Seen {
            weight: *w,
            ..seen(true, 0, true)
        })
        .collect();
    Picker::new(eligible(&seen, 50), &seen, &mut Random::new(1))
}

fn shares(n: usize, picks: usize, mut pick: impl FnMut() -> Option<usize>) -> Vec<f64> {
    let mut counts = vec![0u32; n];
    for _ in 0..picks {
        counts[pick().expect("one")] += 1;
    }
    counts
        .iter()
        .map(|c| f64::from(*c) / picks as f64)
        .collect()
}

#[test]
fn an_endpoint_that_is_barred_is_asked_by_nobody_however_few_there_are() {
    let mut random = Random::new(3);
    for _ in 0..2_000 {
        let n = 1 + random.bits() % 6;
        let all: Vec<Seen> = (0..n)
            .map(|_| {
                let barred = random.unit() < 0.5;
                let usable = !barred && random.unit() < 0.5;
                let priority = (random.bits() % 3) as u8;
                Seen {
                    barred,
                    ..seen(usable, priority, random.unit() < 0.5)
                }
            })
            .collect();
        let threshold = (random.bits() % 101) as u8;
        let Eligible { indices, .. } = eligible(&all, threshold);
        assert!(indices.iter().all(|i| !all[*i].barred), "{all:?}");
        let usable = all.iter().any(|s| s.usable);
        assert!(!usable || !indices.is_empty(), "{all:?}");
    }
}

#[test]
fn the_lowest_priority_with_a_usable_endpoint_is_used() {
    let all = [
        seen(false, 0, true),
        seen(true, 1, true),
        seen(true, 2, true),
    ];
    assert_eq!(eligible(&all, 50).indices, [1]);
}

#[test]
fn near_endpoints_come_first_and_far_ones_when_no_near_one_is_usable() {
    let near = [seen(true, 0, false), seen(true, 0, true)];
    assert_eq!(eligible(&near, 50).indices, [1]);
    let far = [seen(true, 0, false), seen(false, 0, true)];
    assert_eq!(eligible(&far, 50).indices, [0]);
}

#[test]
fn too_few_usable_ones_mean_all_are_used_and_zero_turns_that_off() {
    let one_of_three = [
        seen(true, 0, true),
        seen(false, 0, true),
        seen(false, 0, true),
    ];
    let panic = eligible(&one_of_three, 50);
    assert!(panic.panic);
    assert_eq!(panic.indices, [0, 1, 2]);
    assert_eq!(eligible(&one_of_three, 0).indices, [0]);
    let none = [seen(false, 0, true), seen(false, 1, true)];
    assert_eq!(eligible(&none, 50).indices, [0]);
    assert!(eligible(&none, 0).indices.is_empty());
    assert!(eligible(&[], 50).indices.is_empty());
}

#[test]
fn equal_endpoints_share_equally_and_weights_are_kept() {
    let mut random = Random::new(7);
    let even = picker(&[1.0; 5]);
    for share in shares(5, 50_000, || even.p2c(&mut random, idle)) {
        assert!((share - 0.2).abs() < 0.02, "{share}");
    }
    let uneven = picker(&[1.0, 3.0]);
    let share = shares(2, 50_000, || uneven.p2c(&mut random, idle));
    assert!((share[1] - 0.75).abs() < 0.02, "{share:?}");
}

#[test]
fn a_slow_endpoint_loses_nearly_all_of_its_load() {
    let mut random = Random::new(7);
    let three = picker(&[1.0; 3]);
    let load = |i| Load {
        in_flight: 1,
        latency: Some(if i == 2 { 1e7 } else { 1e6 }),
    };
    let share = shares(3, 10_000, || three.p2c(&mut random, load));
    assert!(share[2] < 0.07, "{share:?}");
}

#[test]
fn the_less_busy_of_two_unknown_ones_is_taken() {
    let mut random = Random::new(7);
    let two = picker(&[1.0, 1.0]);
    let load = |i| Load {
        in_flight: if i == 0 { 5 } else { 1 },
        latency: None,
    };
    assert!((0..100).all(|_| two.p2c(&mut random, load) == Some(1)));
}

#[test]
fn turns_keep_to_the_weights_in_every_round() {
    for seed in 0..50 {
        let seen: Vec<Seen> = [1.0, 2.0, 5.0]
            .map(|weight| Seen {
                weight,
                ..seen(true, 0, true)
            })
            .to_vec();
        let mut turns = Picker::new(eligible(&seen, 0), &seen, &mut Random::new(seed));
        let mut counts = [0; 3];
        for _ in 0..80 {
            counts[turns.in_turn().expect("one")] += 1;
        }
        for (count, fair) in counts.iter().zip([10, 20, 50]) {
            assert!(i32::abs(count - fair) <= 1, "{seed}: {counts:?}");
        }
    }
}

#[test]
fn a_key_moves_only_when_its_endpoint_goes() {
    for n in [2usize, 3, 10, 50] {
        let names: Vec<String> = (0..n).map(|i| format!("10.0.0.{i}:80")).collect();
        let all = Ring::new(names.iter().map(|n| (n.as_bytes(), 1)));
        let fewer = Ring::new(names[..n - 1].iter().map(|n| (n.as_bytes(), 1)));
        let mut moved = 0;
        for key in 0..20_000u64 {
            let at = hash(&key.to_le_bytes());
            let before = all.walk(at).next();
            let after = fewer.walk(at).next();
            if before != after {
                moved += 1;
                assert_eq!(before, Some(n - 1), "only keys of the lost endpoint move");
            }
        }
        let share = f64::from(moved) / 20_000.0;
        assert!(share <= 1.0 / n as f64 + 0.05, "{n}: {share}");
    }
}

#[test]
fn a_ring_of_ten_thousand_stays_small() {
    let names: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let ring = Ring::new(names.iter().map(|n| (n.as_bytes(), 1000)));
    assert!(ring.0.len() <= 400_000);
    assert!(ring.walk(u64::MAX).next().is_some());
    assert!(Ring::default().walk(1).next().is_none());
}

#[test]
fn another_never_returns_what_is_refused() {
    let mut random = Random::new(3);
    let four = picker(&[1.0; 4]);
    for _ in 0..100 {
        assert_eq!(four.another(&mut random, |i| i == 2), Some(2));
        assert_eq!(four.another(&mut random, |_| false), None);
    }
}
