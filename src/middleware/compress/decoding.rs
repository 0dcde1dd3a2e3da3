//! A body on its way through a decoder, for a client that does not take its coding.
//!
//! One buffer at a time, whatever it unfolds to. A body that cannot be decoded is broken off: its
//! head is gone, and a client that sees the end of the stream must not take it for whole.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body as _, Frame};

use super::decoder::{Bad, Decoder};
use super::turns::TURN;
use crate::error::{GatewayError, Reason};
use crate::message::Body;

/// Output of one step, in bytes.
const ROOM: usize = 16 * 1024;

/// A body being decoded.
pub(super) struct Decoding {
    inner: Body,
    decoder: Decoder,
    input: Bytes,
    room: Box<[u8]>,
    /// Output since others had their turn.
    turn: usize,
    over: bool,
}

impl Decoding {
    pub(super) fn new(inner: Body, decoder: Decoder) -> Self {
        Decoding {
            inner,
            decoder,
            input: Bytes::new(),
            room: vec![0; ROOM].into(),
            turn: 0,
            over: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, GatewayError>> {
        loop {
            if self.over {
                return Poll::Ready(Ok(None));
            }
            if self.turn >= TURN {
                self.turn = 0;
                // woken when the runtime has looked at its sockets
                ready!(pin!(tokio::task::yield_now()).poll(cx));
            }
            let (taken, given) = self
                .decoder
                .step(&self.input, &mut self.room)
                .map_err(bad)?;
            self.input.advance(taken);
            if given > 0 {
                self.turn += given;
                let data = Bytes::copy_from_slice(&self.room[..given]);
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            if !self.input.is_empty() {
                if taken == 0 {
                    return Poll::Ready(Err(bad(Bad::Garbage)));
                }
                continue;
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? {
                None => {
                    self.over = true;
                    self.decoder.end().map_err(bad)?;
                }
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(trailers) => {
                        self.over = true;
                        self.decoder.end().map_err(bad)?;
                        return Poll::Ready(Ok(Some(trailers)));
                    }
                },
            }
        }
    }
}

fn bad(bad: Bad) -> GatewayError {
    let reason = match bad {
        Bad::Cut => Reason::HttpResponseIncomplete,
        Bad::Garbage | Bad::Bomb => Reason::HttpProtocolError,
    };
    GatewayError::caused(reason, bad)
}

impl http_body::Body for Decoding {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let polled = ready!(self.poll(cx));
        self.over |= polled.is_err();
        Poll::Ready(polled.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}
