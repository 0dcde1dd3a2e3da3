//! Every reason has its words.

use super::*;

#[test]
fn every_reason_has_a_distinct_word_and_its_own_index() {
    for (i, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(reason.index(), i);
        assert_eq!(
            Reason::ALL
                .iter()
                .filter(|r| r.as_str() == reason.as_str())
                .count(),
            1
        );
    }
}

#[test]
fn what_no_answer_can_be_given_to_and_what_the_client_did_has_no_lesser_answer() {
    for (i, (cause, _)) in Cause::ALL.iter().enumerate() {
        assert_eq!(*cause as usize, i);
    }
    for reason in Reason::ALL {
        let unanswered = reason.status().is_none();
        if unanswered || reason.side() == Side::Client {
            assert_eq!(reason.cause(), None, "{}", reason.as_str());
        }
        if reason.side() == Side::Upstream && !unanswered {
            assert!(reason.cause().is_some(), "{}", reason.as_str());
        }
    }
}

#[test]
fn only_upstream_failures_may_be_tried_again() {
    for reason in Reason::ALL {
        if reason.again() != Again::No {
            assert_eq!(reason.side(), Side::Upstream, "{}", reason.as_str());
        }
    }
}

#[test]
fn a_request_never_written_may_always_be_sent_again() {
    let error = GatewayError::new(Reason::ConnectionTerminated);
    assert_eq!(error.again(), Again::Idempotent);
    assert_eq!(error.never_sent().again(), Again::Always);
    let incomplete = GatewayError::new(Reason::HttpResponseIncomplete).never_sent();
    assert_eq!(incomplete.again(), Again::No);
}
