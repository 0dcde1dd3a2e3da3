//! One runner for all cases: plays the client's side, the origin's side, and judges.
//!
//! The first answer says which of the case's outcomes is claimed; that one must then hold in full.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::data::{Case, Outcome, Step, Then};
use crate::harness::oracles::{Bench, Seen, broken_off};
use crate::harness::origin::Reply;
use crate::harness::parse::{Message, Stop};
use crate::harness::{Raw, SOON};

/// Plays all cases of a row against one gateway.
///
/// The first time may buy buffers; a second time, where the first has, must find them.
pub fn row(cases: &[Case], id: &str) {
    let cases: Vec<&Case> = cases.iter().filter(|case| case.id == id).collect();
    assert!(!cases.is_empty(), "there is no case {id}");
    let mut bench = Bench::start();
    let once = |bench: &mut Bench| cases.iter().for_each(|case| play(bench, case));
    once(&mut bench);
    if bench.has_grown() {
        once(&mut bench);
    }
    bench.finish(id);
}

/// Plays one case.
pub fn play(bench: &mut Bench, case: &Case) {
    let name = case.name.as_str();
    if !case.reply.is_empty() {
        let steps = Arc::new(case.reply.clone());
        bench.set_script(Some(Arc::new(move || act(steps.clone()))));
    }
    let mut raw = Raw::connect(bench.web);
    send(&mut raw, &case.send);
    let first = match case.head {
        true => raw.reader().response(true),
        false => raw.try_response(),
    };
    let outcome = claimed(case, &first);
    match (outcome, first) {
        (Outcome::Reject(_), Ok(answer)) => {
            assert_eq!(
                answer.get("connection"),
                Some("close"),
                "{name}: {answer:?}"
            );
            bench.assert_closed(&mut raw, name);
            let seen = bench.judge(name);
            assert_eq!((seen.requests.len(), seen.cut), (0, 0), "{name}: {seen:?}");
        }
        (Outcome::Abort(_), Ok(_)) => {
            bench.assert_closed(&mut raw, name);
            let seen = bench.judge(name);
            assert_eq!(seen.requests.len(), 0, "{name}: O1: {seen:?}");
        }
        (Outcome::Drop, Err(_)) => {
            let seen = bench.judge(name);
            assert_eq!((seen.requests.len(), seen.cut), (0, 0), "{name}: {seen:?}");
        }
        (Outcome::Cut, Err(_)) => {
            let seen = bench.judge(name);
            assert_eq!(seen.requests.len(), 0, "{name}: O1: {seen:?}");
        }
        (Outcome::Truncated, Err(_)) => {
            let seen = bench.judge(name);
            check_request(case, &seen);
        }
        (Outcome::Norm, Ok(answer)) => {
            check_answer(case, &answer);
            for _ in 1..case.times {
                assert_eq!(raw.response().status(), 200, "{name}");
            }
            settle(bench, &mut raw, case, Then::Keep);
            let seen = bench.judge(name);
            assert_eq!(seen.requests.len(), case.times, "{name}: O1: {seen:?}");
            check_request(case, &seen);
        }
        (Outcome::Status(_), Ok(answer)) => {
            check_answer(case, &answer);
            settle(bench, &mut raw, case, Then::Any);
            judge_counted(bench, case);
        }
        (Outcome::Answers, Ok(answer)) => {
            let mut statuses = vec![answer.status()];
            while statuses.len() < case.answers.len() {
                statuses.push(raw.response().status());
            }
            assert_eq!(statuses, case.answers, "{name}");
            settle(bench, &mut raw, case, Then::Any);
            judge_counted(bench, case);
        }
        (outcome, first) => panic!("{name}: {outcome:?} is not {first:?}"),
    }
}

fn judge_counted(bench: &mut Bench, case: &Case) {
    let seen = bench.judge(&case.name);
    if let Some(count) = case.upstream {
        assert_eq!(seen.requests.len(), count, "{}: O1: {seen:?}", case.name);
    }
    check_request(case, &seen);
}

/// Which of the allowed outcomes the first answer belongs to.
fn claimed(case: &Case, first: &Result<Message, Stop>) -> Outcome {
    let fits = |outcome: &&Outcome| match (outcome, first) {
        (Outcome::Reject(of) | Outcome::Abort(of) | Outcome::Status(of), Ok(answer)) => {
            of.contains(&answer.status())
        }
        (Outcome::Norm, Ok(answer)) => answer.status() == 200,
        (Outcome::Answers, Ok(answer)) => case.answers.first() == Some(&answer.status()),
        (Outcome::Drop | Outcome::Cut, Err(Stop::End)) => true,
        (Outcome::Drop | Outcome::Cut | Outcome::Truncated, Err(Stop::Cut(why))) => broken_off(why),
        _ => false,
    };
    let Some(outcome) = case.expect.iter().find(fits) else {
        let got = match first {
            Ok(answer) => format!("{} {}", answer.start, answer.text()),
            Err(stop) => format!("{stop:?}"),
        };
        panic!("{}: allowed {:?}, got {got}", case.name, case.expect);
    };
    outcome.clone()
}

fn send(raw: &mut Raw, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Pause(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            // Who refuses early need not read all of it.
            Step::Bytes(bytes) => {
                if raw.try_send(bytes).is_err() {
                    return;
                }
            }
            Step::Fin | Step::Reset => drop(raw.stream().shutdown(Shutdown::Write)),
        }
    }
}

/// The origin's side.
fn act(steps: Arc<Vec<Step>>) -> Reply {
    Reply::Act(Box::new(move |stream: &mut TcpStream| {
        stream.set_write_timeout(Some(SOON)).expect("a timeout");
        for step in steps.iter() {
            match step {
                Step::Pause(millis) => std::thread::sleep(Duration::from_millis(*millis)),
                Step::Bytes(bytes) => {
                    if stream.write_all(bytes).is_err() {
                        return false;
                    }
                }
                Step::Fin => {
                    drop(stream.shutdown(Shutdown::Both));
                    return false;
                }
                Step::Reset => {
                    // What was written gets out before the reset wipes it.
                    std::thread::sleep(Duration::from_millis(20));
                    let socket = socket2::SockRef::from(&*stream);
                    socket.set_linger(Some(Duration::ZERO)).expect("linger");
                    return false;
                }
            }
        }
        true
    }))
}

fn settle(bench: &Bench, raw: &mut Raw, case: &Case, default: Then) {
    match case.then.unwrap_or(default) {
        Then::Keep => bench.assert_kept(raw, &case.name),
        Then::Close => bench.assert_closed(raw, &case.name),
        Then::Any => bench.assert_kept_or_closed(raw, &case.name),
    }
}

fn check_answer(case: &Case, answer: &Message) {
    // Said of the origin's answer, not of ours in its place.
    if answer.get("proxy-status").is_some() {
        return;
    }
    check_fields(&case.name, answer, &case.says);
    if let Some(body) = &case.answer {
        assert_eq!(
            answer.text(),
            String::from_utf8_lossy(body),
            "{}",
            case.name
        );
    }
}

/// Trailers that are never merged, framed by or routed on.
const NO_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "cookie",
    "connection",
    "x-forwarded-for",
];

fn check_request(case: &Case, seen: &Seen) {
    let name = &case.name;
    let Some(request) = seen.requests.first() else {
        return;
    };
    check_fields(name, request, &case.sees);
    for (trailer, _) in &request.trailers {
        let lower = trailer.to_ascii_lowercase();
        assert!(
            !NO_TRAILERS.contains(&lower.as_str()),
            "{name}: trailer {trailer}"
        );
    }
    if let Some(target) = &case.target {
        assert_eq!(request.target(), String::from_utf8_lossy(target), "{name}");
    }
    if let Some(body) = &case.body {
        assert_eq!(request.text(), String::from_utf8_lossy(body), "{name}");
    }
}

fn check_fields(name: &str, message: &Message, wanted: &[String]) {
    for want in wanted {
        if let Some(field) = want.strip_prefix('-') {
            assert!(
                message.all(field).is_empty(),
                "{name}: {field} in {message:?}"
            );
        } else if let Some((field, value)) = want.split_once(": ") {
            assert_eq!(message.all(field), [value], "{name}: {message:?}");
        } else {
            assert!(
                !message.all(want).is_empty(),
                "{name}: no {want} in {message:?}"
            );
        }
    }
}
