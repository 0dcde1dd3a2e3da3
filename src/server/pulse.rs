//! Where one client connection stands in time, for its one timer.
//!
//! The IO notes when a request head begins and ends, the service how many requests are open; the
//! connection's task asks [`Pulse::due`] for the moment at which it must be closed. So a
//! connection has one timer that is moved only when it fires or an earlier moment appears, and a
//! request registers none. While an answer is on its way out, though its request has ended, nothing
//! is idle: hyper and h2 hold bytes that the client has not taken. All of it runs on one worker; the atomics are there so that types stay
//! `Send`, and are never contended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::clock;
use crate::plan::listener::Limits;
use crate::telemetry::handles::Violation;

/// How long an idle connection is kept open once it is to close: a request may be on its way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long an HTTP/1 connection is idle before it goes to rest.
const REST: Duration = Duration::from_secs(1);

/// What a response body did when it was last polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// It had something: the client is to take it.
    Given,
    /// It had nothing yet.
    Awaited,
}

/// The times of one connection.
#[derive(Debug)]
pub(super) struct Pulse {
    opened: Instant,
    /// Several requests at once: a head may be unfinished beside open requests (HTTP/2).
    multiplexed: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    open: AtomicU32,
    /// Pieces of answers that HTTP/2 holds.
    held: AtomicU32,
    /// Requests that have ended.
    ended: AtomicU64,
    /// The client has said something whole: a request, or the HTTP/2 preface.
    greeted: AtomicBool,
    /// Nanoseconds since `opened` when the last request ended, or the last of its answer left.
    idle_since: AtomicU64,
    /// When the unfinished head began; 0: there is none.
    head_since: AtomicU64,
    /// The last byte seen was not the last of a request.
    amid: AtomicBool,
    /// When closing began; 0: it has not.
    closing_since: AtomicU64,
    released: AtomicBool,
    /// One more than the number of the rule that the client broke; 0: none.
    blamed: AtomicU8,
    /// Output waits for the socket.
    blocked: AtomicBool,
    /// A [`Piece`] and one; 0: no body was polled.
    piece: AtomicU8,
    /// There is nothing to read in this turn of the connection's task.
    dry: AtomicBool,
}

impl Pulse {
    /// Of a connection that begins now.
    pub(super) fn new(limits: &Limits, multiplexed: bool) -> Self {
        Pulse {
            opened: clock::now(),
            multiplexed,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
            open: AtomicU32::new(0),
            held: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            amid: AtomicBool::new(false),
            closing_since: AtomicU64::new(0),
            released: AtomicBool::new(false),
            blamed: AtomicU8::new(0),
            blocked: AtomicBool::new(false),
            piece: AtomicU8::new(0),
            dry: AtomicBool::new(false),
        }
    }

    fn elapsed(&self) -> u64 {
        let nanos = clock::now().duration_since(self.opened).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }

    /// After each read: whether a request head has begun and not ended.
    pub(super) fn head(&self, unfinished: bool) {
        let noted = self.head_since.load(Relaxed) != 0;
        if unfinished != noted {
            let since = if unfinished { self.elapsed() } else { 0 };
            self.head_since.store(since, Relaxed);
        }
    }

    /// After each read: whether what was read is only a part of a request, or one that asks to
    /// leave HTTP.
    pub(super) fn amid(&self, amid: bool) {
        self.amid.store(amid, Relaxed);
    }

    /// The client has shown what it speaks: from here on it may be idle.
    pub(super) fn greet(&self) {
        if !self.greeted.swap(true, Relaxed) {
            self.idle_since.store(self.elapsed(), Relaxed);
        }
    }

    /// A request has begun.
    pub(super) fn begin(&self) {
        self.greeted.store(true, Relaxed);
        self.open.store(self.open.load(Relaxed) + 1, Relaxed);
    }

    /// A request has ended, body and all.
    pub(super) fn end(&self) {
        let open = self.open.load(Relaxed).saturating_sub(1);
        self.open.store(open, Relaxed);
        self.ended.store(self.ended() + 1, Relaxed);
        self.rest();
    }

    /// Idling begins now, if nothing is open.
    fn rest(&self) {
        if self.open() == 0 {
            self.idle_since.store(self.elapsed(), Relaxed);
        }
    }

    /// HTTP/2 has been given a piece of an answer.
    pub(super) fn hold(&self) {
        self.held.store(self.held.load(Relaxed) + 1, Relaxed);
    }

    /// A piece has left, or was thrown away with its stream.
    pub(super) fn let_go(&self) {
        let held = self.held.load(Relaxed).saturating_sub(1);
        self.held.store(held, Relaxed);
        self.rest();
    }

    /// Whether HTTP/2 holds a piece of an answer.
    pub(super) fn holds(&self) -> bool {
        self.held.load(Relaxed) > 0
    }

    /// Requests that are open; one at least where something of an answer has not left yet.
    pub(super) fn unfinished(&self) -> u32 {
        self.open().max(u32::from(self.blocked() || self.holds()))
    }

    /// Requests begun and not ended.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Requests begun and ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// The connection is to close as soon as it politely can.
    pub(super) fn close(&self) {
        self.closing_since.store(self.elapsed(), Relaxed);
    }

    /// Whether [`Pulse::close`] was called.
    pub(super) fn closing(&self) -> bool {
        self.closing_since.load(Relaxed) != 0
    }

    /// The connection is no longer HTTP: its bytes are a tunnel's.
    pub(super) fn release(&self) {
        self.released.store(true, Relaxed);
    }

    /// Whether [`Pulse::release`] was called.
    pub(super) fn released(&self) -> bool {
        self.released.load(Relaxed)
    }

    /// The connection is ended for a rule that the client broke; hyper may not say so.
    pub(super) fn blame(&self, violation: Violation) {
        self.blamed.store(violation as u8 + 1, Relaxed);
    }

    /// What [`Pulse::blame`] was called with.
    pub(super) fn blamed(&self) -> Option<Violation> {
        let number = usize::from(self.blamed.load(Relaxed)).checked_sub(1)?;
        Violation::ALL.get(number).map(|(violation, _)| *violation)
    }

    /// Output waits for the socket (true), or all of it has left (false).
    pub(super) fn block(&self, blocked: bool) {
        if self.blocked() != blocked {
            self.blocked.store(blocked, Relaxed);
            self.rest();
        }
    }

    /// Whether output waits for the socket.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// HTTP/2 has another turn: there may be something to read.
    pub(super) fn turn(&self) {
        self.dry.store(false, Relaxed);
    }

    /// All that has come was read; who reads is woken when there is more.
    pub(super) fn dry(&self) {
        self.dry.store(true, Relaxed);
    }

    /// Whether [`Pulse::dry`] was called in this turn.
    pub(super) fn is_dry(&self) -> bool {
        self.dry.load(Relaxed)
    }

    /// A response body was polled.
    pub(super) fn note(&self, piece: Piece) {
        self.piece.store(piece as u8 + 1, Relaxed);
    }

    /// What was noted since this was last asked.
    pub(super) fn piece(&self) -> Option<Piece> {
        match self.piece.swap(0, Relaxed) {
            0 => None,
            1 => Some(Piece::Given),
            _ => Some(Piece::Awaited),
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.head_since.load(Relaxed) != 0
    }

    /// When an HTTP/1 connection goes to rest if nothing happens until then; `None` while anything
    /// is under way or it is to close.
    pub(super) fn rest_due(&self) -> Option<Instant> {
        let under_way = self.unfinished() > 0 || self.in_head() || self.amid.load(Relaxed);
        if under_way || self.closing() || !self.greeted.load(Relaxed) {
            return None;
        }
        let idle = Duration::from_nanos(self.idle_since.load(Relaxed));
        Some(self.opened + idle + REST)
    }

    /// When the connection must be closed if nothing happens until then; `None` while requests
    /// are open or output waits for the socket, which have limits of their own.
    pub(super) fn due(&self) -> Option<Instant> {
        let head = self.head_since.load(Relaxed);
        let idle = self.idle_since.load(Relaxed);
        let at =
            |nanos: u64, wait: Duration| Some(self.opened + Duration::from_nanos(nanos) + wait);
        if self.open() > 0 || self.blocked() {
            return if self.multiplexed && head != 0 {
                at(head, self.header_timeout)
            } else {
                None
            };
        }
        if self.holds() && head == 0 {
            return at(idle, self.write_timeout);
        }
        if head != 0 {
            let begun = if self.multiplexed {
                head
            } else {
                head.max(idle)
            };
            return at(begun, self.header_timeout);
        }
        if !self.greeted.load(Relaxed) {
            return at(0, self.header_timeout);
        }
        let closing = self.closing_since.load(Relaxed);
        if closing != 0 {
            return at(closing.max(idle), LAST_CALL);
        }
        at(idle, self.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);
    const WRITE: Duration = Duration::from_secs(30);

    fn pulse(multiplexed: bool) -> Pulse {
        let limits = Limits {
            headers: 1,
            header_bytes: 1,
            header_timeout: HEADER,
            idle_timeout: IDLE,
            body_idle_timeout: IDLE,
            write_timeout: WRITE,
            streams: 1,
        };
        Pulse::new(&limits, multiplexed)
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn due_in(pulse: &Pulse) -> Option<u64> {
        let due = pulse.due()?;
        Some(due.duration_since(clock::now()).as_millis().div_ceil(1000) as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn http1_goes_from_first_byte_to_idle_by_the_right_timeout() {
        let pulse = pulse(false);
        pass(1).await;
        assert_eq!(
            due_in(&pulse),
            Some(9),
            "the first head counts from the beginning"
        );
        pulse.head(true);
        pass(4).await;
        pulse.head(true);
        assert_eq!(due_in(&pulse), Some(6), "more bytes do not put it off");
        pulse.head(false);
        pulse.begin();
        assert_eq!(
            due_in(&pulse),
            None,
            "an open request has limits of its own"
        );
        pulse.head(true);
        pass(100).await;
        assert_eq!(due_in(&pulse), None);
        pulse.end();
        assert_eq!(
            due_in(&pulse),
            Some(10),
            "a head that had to wait is not blamed for it"
        );
        pulse.head(false);
        assert_eq!(due_in(&pulse), Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_leaves_an_idle_connection_a_second() {
        let pulse = pulse(false);
        pulse.begin();
        pulse.close();
        assert_eq!(due_in(&pulse), None);
        pass(5).await;
        pulse.end();
        assert_eq!(due_in(&pulse), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_on_its_way_out_is_not_idle() {
        let pulse = pulse(false);
        pulse.begin();
        pulse.block(true);
        pulse.end();
        pulse.close();
        assert_eq!(due_in(&pulse), None, "`io` has a limit for that");
        assert_eq!(pulse.unfinished(), 1);
        pass(100).await;
        pulse.block(false);
        assert_eq!(due_in(&pulse), Some(1), "it has just ended");
        assert_eq!(pulse.unfinished(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_waits_for_a_window_is_due_when_none_leaves_for_the_write_timeout() {
        let pulse = pulse(true);
        pulse.begin();
        pulse.hold();
        pulse.hold();
        pulse.end();
        pass(20).await;
        assert_eq!(due_in(&pulse), Some(WRITE.as_secs() - 20));
        pulse.let_go();
        assert_eq!(due_in(&pulse), Some(WRITE.as_secs()));
        assert_eq!(pulse.unfinished(), 1);
        pulse.let_go();
        assert_eq!(due_in(&pulse), Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn g05_an_unfinished_header_block_is_due_beside_open_streams() {
        let pulse = pulse(true);
        pulse.greet();
        assert_eq!(due_in(&pulse), Some(60), "the preface was enough");
        pulse.begin();
        assert_eq!(due_in(&pulse), None);
        pulse.head(true);
        assert_eq!(due_in(&pulse), Some(10));
    }
}
