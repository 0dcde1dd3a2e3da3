//! Lines are always JSON, and nothing a disk or a reader does reaches a worker.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use http::Version;
use proptest::prelude::*;

use super::*;
use crate::error::Reason;

fn record() -> Record<'static> {
    Record {
        route: "api",
        method: "GET",
        scheme: "https",
        host: b"example.com",
        path: b"/v1/things",
        query: Some(b"a=1"),
        status: 200,
        reason: None,
        observed: &[],
        degraded: None,
        duration: Duration::from_micros(1_234),
        first_byte: Some(Duration::from_micros(999)),
        upstream: Some("app"),
        endpoint: Some(([127, 0, 0, 1], 9001).into()),
        tries: 1,
        waited: Duration::from_micros(20),
        bytes_in: 0,
        bytes_out: 4_096,
        client: [192, 0, 2, 1].into(),
        peer: ([10, 0, 0, 1], 40_000).into(),
        protocol: Version::HTTP_2,
        user_agent: Some(b"test/1"),
        referer: None,
        client_subject: None,
        request_id: b"0190-abc",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
    }
}

fn formatted(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    line::write(&mut out, record, b"2026-01-02T03:04:05.678Z");
    out
}

fn to_file(path: &Path) -> Settings {
    Settings::new(path.to_str().expect("UTF-8"), Path::new(""), 1.0)
}

/// Closes first, so that the writer ends by itself on this thread.
fn run_to_end(writer: Writer, control: &Control) {
    control.close(Duration::ZERO);
    writer.run();
    assert!(control.close(Duration::ZERO), "the writer has ended");
}

#[test]
fn a_line_has_the_fields_of_the_manual_in_order() {
    let line = formatted(&record());
    let expected = concat!(
        r#"{"ts":"2026-01-02T03:04:05.678Z","route":"api","method":"GET","scheme":"https","#,
        r#""host":"example.com","path":"/v1/things","query":"a=1","status":200,"#,
        r#""duration_ms":1.234,"first_byte_ms":0.999,"upstream":"app","#,
        r#""endpoint":"127.0.0.1:9001","tries":1,"upstream_ms":0.020,"bytes_in":0,"#,
        r#""bytes_out":4096,"client":"192.0.2.1","peer":"10.0.0.1:40000","#,
        r#""protocol":"HTTP/2","user_agent":"test/1","request_id":"0190-abc","#,
        r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

#[test]
fn what_would_deceive_a_reader_is_escaped() {
    let path = "/\r\n\u{1b}[31m\"\\\u{202e}\u{2066}\u{200b}\u{85}\u{feff}\u{7f}é".as_bytes();
    let line = formatted(&Record { path, ..record() });
    let text = String::from_utf8(line).expect("UTF-8");
    let shown = r#""/\r\n\u001b[31m\"\\\u202e\u2066\u200b\u0085\ufeff\u007fé""#;
    assert!(text.contains(shown), "{text}");
}

#[test]
fn bytes_that_are_no_utf8_are_replaced() {
    let user_agent: Option<&[u8]> = Some(b"a\xff\xc3b");
    let line = formatted(&Record {
        user_agent,
        ..record()
    });
    let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    assert_eq!(value["user_agent"], "a\u{fffd}\u{fffd}b");
}

proptest! {
    #[test]
    fn whatever_is_sent_a_record_is_one_line_of_json(
        path in proptest::collection::vec(any::<u8>(), 0..200),
        host in any::<String>(),
        agent in "[\\x00-\\x1f\u{80}-\u{a0}\u{2000}-\u{2070}\\\\\"a]{0,40}",
    ) {
        let line = formatted(&Record {
            path: &path,
            host: host.as_bytes(),
            user_agent: Some(agent.as_bytes()),
            ..record()
        });
        prop_assert_eq!(line.iter().filter(|b| **b < 0x20 || **b == 0x7f).count(), 1);
        prop_assert_eq!(line.last(), Some(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        prop_assert_eq!(value["path"].as_str(), Some(&*String::from_utf8_lossy(&path)));
        prop_assert_eq!(value["host"].as_str(), Some(host.as_str()));
        prop_assert_eq!(value["user_agent"].as_str(), Some(agent.as_str()));
    }

    #[test]
    fn a_stamp_is_the_date_that_httpdate_reads(seconds in 0u64..253_402_300_800, millis in 0u64..1_000) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + millis);
        let mut stamp = Stamp::default();
        let text = String::from_utf8(stamp.at(time).to_vec()).expect("ASCII");
        let date = httpdate::HttpDate::from(time).to_string();
        let clock = format!("{} {}", &text[..4], &text[11..19]);
        prop_assert_eq!(clock, &date[12..25]);
        prop_assert_eq!(&text[8..10], &date[5..7]);
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month: usize = text[5..7].parse().expect("a number");
        prop_assert_eq!(months[month - 1], &date[8..11]);
        prop_assert_eq!(&text[19..], format!(".{millis:03}Z"));
    }
}

#[test]
fn lines_of_all_workers_reach_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, writer, control) = open(&to_file(&path), 2).expect("opened");
    for log in &logs {
        (0..3).for_each(|_| log.log(&record()));
        log.clone().flush();
    }
    run_to_end(writer, &control);
    let text = fs::read_to_string(&path).expect("a file");
    assert_eq!(text.lines().count(), 6);
    assert_eq!(control.counts(), (6, 0));
}

#[test]
fn a_line_takes_the_older_ones_along_when_they_have_waited() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, mut writer, control) = open(&to_file(&path), 1).expect("opened");
    logs[0].log(&record());
    logs[0].0.buffer.lock().oldest -= AGE;
    logs[0].log(&record());
    writer.step();
    assert_eq!(control.counts(), (2, 0));
}

#[test]
fn a_writer_that_does_not_keep_up_costs_lines_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, writer, control) = open(&to_file(&path), 1).expect("opened");
    let line = formatted(&record()).len();
    let total = (WAITING * CHUNK + 2 * FULL) / line + 1_000;
    (0..total).for_each(|_| logs[0].log(&record()));
    let (_, dropped) = control.counts();
    assert!(dropped > 0 && dropped < total as u64);
    assert!(logs[0].0.buffer.lock().bytes.len() <= FULL + line);
    // the writer comes back: what waits is written, and new lines find room
    let last = logs[0].clone();
    run_to_end(writer, &control);
    last.flush();
    let (written, dropped) = control.counts();
    assert_eq!(written + dropped, total as u64);
}

#[test]
fn a_full_disk_loses_lines_until_there_is_room_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, mut writer, control) = open(&to_file(Path::new("/dev/full")), 1).expect("opened");
    logs[0].log(&record());
    logs[0].flush();
    writer.step();
    assert_eq!(control.counts(), (0, 1));
    control.apply(to_file(&path).open().expect("a file"));
    logs[0].log(&record());
    logs[0].flush();
    run_to_end(writer, &control);
    assert_eq!(control.counts(), (1, 1));
    assert_eq!(
        fs::read(&path).expect("a file").last(),
        Some(&b'\n'),
        "whole lines"
    );
}

#[test]
fn a_worker_that_ends_hands_over_its_last_lines_or_counts_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, mut writer, control) = open(&to_file(&path), 2).expect("opened");
    let mut logged = 0;
    while control.counts().1 == 0 {
        logs[0].log(&record());
        logged += 1;
    }
    logs[1].log(&record());
    logged += 1;
    logs[1].close(Duration::ZERO);
    assert_eq!(control.counts().1, 2, "nothing reads the channel");
    writer.step();
    logs[0].close(Duration::from_secs(5));
    assert_eq!(control.counts().1, 2, "there was room again");
    run_to_end(writer, &control);
    let (written, lost) = control.counts();
    assert_eq!(written + lost, logged);
}

#[test]
fn a_closed_pipe_is_no_end() {
    let (reader, pipe) = std::io::pipe().expect("a pipe");
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let (logs, writer, control) = open(&to_file(Path::new(&path)), 1).expect("opened");
    drop((reader, pipe));
    logs[0].log(&record());
    logs[0].flush();
    run_to_end(writer, &control);
    assert_eq!(control.counts(), (0, 1));
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, old) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
    let (logs, mut writer, control) = open(&to_file(&path), 1).expect("opened");
    logs[0].log(&record());
    logs[0].flush();
    writer.step();
    fs::rename(&path, &old).expect("renamed");
    control.reopen();
    logs[0].log(&record());
    logs[0].flush();
    run_to_end(writer, &control);
    for file in [path, old] {
        let text = fs::read_to_string(&file).expect("a file");
        assert_eq!(text.lines().count(), 1, "{}", file.display());
    }
}

#[test]
fn a_target_that_cannot_be_opened_leaves_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let (logs, writer, control) = open(&to_file(&path), 1).expect("opened");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder in its place");
    control.reopen();
    logs[0].log(&record());
    logs[0].flush();
    run_to_end(writer, &control);
    assert_eq!(control.counts(), (1, 0));
    assert!(open(&to_file(&folder.path().join("no/such/folder.log")), 1).is_err());
}

#[test]
fn a_sample_is_about_its_share_and_never_leaves_out_our_own_failures() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |sample| Settings {
        sample,
        ..to_file(&folder.path().join("access.log"))
    };
    let lines = |sample, record: &Record<'_>| {
        let (logs, writer, control) = open(&settings(sample), 1).expect("opened");
        (0..2_000).for_each(|_| logs[0].log(record));
        logs[0].flush();
        run_to_end(writer, &control);
        control.counts().0
    };
    let failed = Record {
        status: 502,
        reason: Some(Reason::ConnectionRefused),
        ..record()
    };
    let of_upstream = Record {
        status: 502,
        ..record()
    };
    assert_eq!(lines(1.0, &record()), 2_000);
    assert_eq!(lines(0.0, &record()), 0);
    assert_eq!(lines(0.0, &of_upstream), 0);
    assert_eq!(lines(0.0, &failed), 2_000);
    assert!((160..240).contains(&lines(0.1, &record())));
}

#[test]
fn a_log_that_is_off_takes_nothing_and_can_be_turned_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let off = Settings::new("off", Path::new(""), 1.0);
    let failed = Record {
        status: 500,
        reason: Some(Reason::Panic),
        ..record()
    };
    let (logs, writer, control) = open(&off, 1).expect("opened");
    logs[0].log(&failed);
    let file = to_file(&folder.path().join("access.log"));
    control.apply(file.open().expect("a file"));
    logs[0].log(&failed);
    logs[0].flush();
    run_to_end(writer, &control);
    assert_eq!(control.counts(), (1, 0));
}
