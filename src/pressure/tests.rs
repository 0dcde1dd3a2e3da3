//! Levels under seeded sweeps of what may be measured.

use super::*;
use crate::chance::Chance;

const QUARTER: Duration = Duration::from_millis(250);
const MOMENT: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_millis(50);

#[test]
fn use_between_the_threshold_and_the_end_sheds_low_then_normal_then_high() {
    let level = |used| {
        let mut valve = Valve::default();
        valve.fill(used, 0.9, QUARTER);
        (valve.level() * 100.0).round() / 100.0
    };
    assert_eq!(level(0.5), 0.0);
    assert_eq!(level(0.9), 0.0);
    assert_eq!(level(0.95), 1.5);
    assert_eq!(level(1.0), 3.0);
    assert_eq!(level(7.0), 3.0);
    let shares = |level| {
        Priority::ALL
            .iter()
            .map(|(p, _)| share(level, *p))
            .collect::<Vec<_>>()
    };
    assert_eq!(shares(0), [0, 0, 0]);
    assert_eq!(shares(300), [300, 0, 0]);
    assert_eq!(shares(1500), [1000, 500, 0]);
    assert_eq!(shares(3000), [1000, 1000, 1000]);
}

#[test]
fn a_level_rises_at_once_holds_about_the_threshold_and_falls_slowly() {
    let mut valve = Valve::default();
    valve.fill(0.95, 0.9, QUARTER);
    let peak = valve.level();
    valve.fill(0.89, 0.9, QUARTER);
    assert_eq!(valve.level(), peak, "just below it nothing moves");
    let mut quarters = 0;
    while valve.level() > 0.0 {
        let before = valve.level();
        valve.fill(0.5, 0.9, QUARTER);
        assert!(valve.level() < before);
        quarters += 1;
    }
    assert!(
        (56..=64).contains(&quarters),
        "15 s from 1.5: {quarters} quarters"
    );
}

#[test]
fn lag_climbs_while_a_worker_is_late_and_never_reaches_high_priority() {
    let mut valve = Valve::default();
    valve.late(LEAST, LIMIT, MOMENT);
    let first = valve.level();
    assert!(first > 0.0 && first < 0.2, "a moment sheds few: {first}");
    for _ in 0..1_000 {
        valve.late(LIMIT * 10, LIMIT, MOMENT);
        assert!(valve.level() <= MOST_FOR_LAG);
    }
    assert_eq!(share(2000, Priority::High), 0);
    let (mut slightly, mut very) = (Valve::default(), Valve::default());
    for _ in 0..4 {
        slightly.late(LEAST, LIMIT, MOMENT);
        very.late(LEAST * 4, LIMIT, MOMENT);
    }
    assert!(very.level() > 2.0 * slightly.level());
}

#[test]
fn one_stall_however_long_sheds_nothing_and_a_standing_lag_does() {
    let rules = super::config::ShedConfig::default().rules();
    let (pressure, mut own) = (Pressure::new(1), Own::default());
    let mut look = |lag| {
        own.step(lag, Some(&rules), MOMENT + lag, (&pressure, 0));
        pressure.levels().next().expect("a worker").0
    };
    assert_eq!(look(Duration::from_secs(5)), 0.0);
    for _ in 1..LOOKS {
        assert_eq!(look(Duration::from_millis(3)), 0.0);
    }
    let rising: Vec<f64> = (0..20).map(|_| look(rules.lag * 2)).collect();
    assert_eq!(rising[LOOKS - 2], 0.0);
    assert!(rising[LOOKS - 1] > 0.0 && rising[19] > 1.0, "{rising:?}");
}

#[test]
fn a_lag_too_small_for_normal_priority_sheds_low_alone() {
    let long = Duration::from_millis(200);
    let level = |lag: Duration| {
        let mut valve = Valve::default();
        (0..200).for_each(|_| valve.late(lag, long, MOMENT));
        valve.level()
    };
    assert_eq!(level(long / 10 - Duration::from_millis(1)), 0.0);
    assert_eq!(level(long / 10), 1.0);
    assert_eq!(level(long - Duration::from_millis(1)), 1.0);
    assert_eq!(level(long), MOST_FOR_LAG);
}

/// All of the load is low: its level, and the share of the looks at which the worker was late, after
/// two minutes in which that settles.
#[test]
fn once_it_is_known_what_must_be_shed_a_worker_is_hardly_late_again() {
    for (seed, overload) in [(1, 1.5), (2, 4.0), (3, 10.0)] {
        let chance = Chance::seeded(seed);
        let (mut valve, mut lag, mut late) = (Valve::default(), 0.0_f64, 0);
        for look in 0..14_400 {
            let noise = 0.95 + chance.below(100) as f64 / 1_000.0;
            let load = overload * (1.0 - valve.level().min(1.0)) * noise;
            lag = (lag + (load - 1.0) * MOMENT.as_secs_f64()).clamp(0.0, 2.0);
            valve.late(Duration::from_secs_f64(lag), LIMIT, MOMENT);
            late += u32::from(look >= 2_400 && lag >= LEAST.as_secs_f64());
        }
        let share = f64::from(late) / 12_000.0;
        assert!(
            share < 0.02,
            "overload {overload}: late at {share} of all looks"
        );
    }
}

#[test]
fn a_load_that_is_gone_is_forgotten_within_a_minute() {
    let mut valve = Valve::default();
    (0..40).for_each(|_| valve.late(LIMIT, LIMIT, MOMENT));
    (0..100).for_each(|_| valve.late(Duration::ZERO, LIMIT, MOMENT));
    assert!(valve.level() > 1.0);
    (0..4).for_each(|_| valve.late(LIMIT, LIMIT, MOMENT));
    let mut looks = 0;
    while valve.level() > 0.0 {
        valve.late(Duration::ZERO, LIMIT, MOMENT);
        looks += 1;
    }
    assert!((600..=1_200).contains(&looks), "{looks} looks of 50 ms");
}

/// A worker that is the later the more of its work it lets in: what it sheds must settle.
#[test]
fn over_a_steady_overload_what_is_shed_settles_and_does_not_swing() {
    for (seed, overload) in [(1, 1.5), (2, 4.0), (3, 10.0)] {
        let chance = Chance::seeded(seed);
        let (mut valve, mut lag) = (Valve::default(), 0.0_f64);
        let mut levels = Vec::new();
        for _ in 0..2_400 {
            // all of it is low and normal, half each
            let shed = (valve.level().min(1.0) + (valve.level() - 1.0).clamp(0.0, 1.0)) / 2.0;
            let load = overload * (1.0 - shed) * (0.95 + chance.below(100) as f64 / 1_000.0);
            lag = (lag + (load - 1.0) * MOMENT.as_secs_f64()).clamp(0.0, 2.0);
            valve.late(Duration::from_secs_f64(lag), LIMIT, MOMENT);
            levels.push(valve.level());
        }
        let settled = &levels[1_200..];
        let (low, high) = settled
            .iter()
            .fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
        let needed = 2.0 * (1.0 - 1.0 / overload);
        assert!(high - low < 0.5, "overload {overload}: {low} to {high}");
        assert!(
            high > needed - 0.3,
            "overload {overload}: {high} of {needed}"
        );
    }
}

#[test]
fn no_measurement_however_odd_takes_a_level_out_of_its_bounds() {
    let chance = Chance::seeded(5);
    let (mut fill, mut late) = (Valve::default(), Valve::default());
    for _ in 0..100_000 {
        let passed = Duration::from_millis(chance.below(3_000));
        let threshold = (chance.below(999) + 1) as f64 / 1_000.0;
        fill.fill(chance.below(3_000) as f64 / 1_000.0, threshold, passed);
        let lag = Duration::from_nanos(chance.next() >> chance.below(64));
        late.late(lag, Duration::from_millis(chance.below(500)), passed);
        assert!((0.0..=FULL).contains(&fill.level()));
        assert!((0.0..=MOST_FOR_LAG).contains(&late.level()));
    }
}

#[test]
fn a_worker_sheds_for_the_worse_of_its_own_and_the_process() {
    let pressure = Pressure::new(2);
    let sheds = |worker, priority| pressure.sheds(worker, priority, || 500);
    pressure.set_worker(0, 0.6, 2.0);
    pressure.set_worker(1, 0.4, 0.5);
    assert_eq!(sheds(0, Priority::Low), Some(Cause::Lag));
    assert_eq!(sheds(1, Priority::Low), None, "by chance");
    assert_eq!(sheds(0, Priority::Normal), None);
    pressure.set_process((0.95, 1.5), (0.97, 2.1));
    assert_eq!(
        sheds(0, Priority::Normal),
        None,
        "a worker looks when it looks"
    );
    pressure.set_worker(0, 0.6, 0.2);
    assert_eq!(sheds(0, Priority::Normal), Some(Cause::Descriptors));
    assert_eq!(
        pressure.sheds(0, Priority::High, || 50),
        Some(Cause::Descriptors)
    );
    assert_eq!(sheds(0, Priority::High), None);
    let ratios = pressure.ratios();
    assert_eq!(
        ratios,
        [("memory", 0.95), ("descriptors", 0.97), ("lag", 0.5)]
    );
    assert_eq!(pressure.levels().next(), Some((2.1, Cause::Descriptors)));
}
