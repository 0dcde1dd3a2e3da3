//! Framing is made anew on every hop: what a request says of its body, and what an answer may.
//!
//! The request's length comes from its body and never from a field that came in. An answer whose
//! framing is in doubt (RFC 9112 6) is refused or its connection is not used again.

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri, Version, uri};
use http_body::Body as _;

use super::endpoint::Endpoint;
use crate::error::{GatewayError, Reason};
use crate::message::{Body, Response};

/// Makes a request fit for its connection.
pub(super) fn prepare(
    request: &mut http::Request<Body>,
    h2: bool,
    endpoint: &Endpoint,
) -> Result<(), GatewayError> {
    let length = request.body().size_hint().exact();
    let empty = request.body().is_end_stream();
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    match length {
        _ if empty => {}
        Some(length) => {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        None if !h2 => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        None => {}
    }
    let expects = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if empty && expects {
        let none = HeaderValue::from_static("0");
        request.headers_mut().insert(CONTENT_LENGTH, none);
    }
    if h2 {
        to_h2(request, endpoint)?;
    } else {
        to_h1(request)?;
    }
    Ok(())
}

/// HTTP/1.1 has a path and a Host; the authority is there only after a try over HTTP/2.
fn to_h1(request: &mut http::Request<Body>) -> Result<(), GatewayError> {
    *request.version_mut() = Version::HTTP_11;
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    let invalid = |e: http::Error| GatewayError::caused(Reason::BadRequest, e);
    let host = HeaderValue::try_from(authority.as_str()).map_err(|e| invalid(e.into()))?;
    request.headers_mut().insert(HOST, host);
    let mut parts = uri::Parts::default();
    parts.path_and_query = std::mem::take(request.uri_mut())
        .into_parts()
        .path_and_query;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| invalid(e.into()))?;
    Ok(())
}

/// HTTP/2 names scheme and authority beside the path, and has no Host.
fn to_h2(request: &mut http::Request<Body>, endpoint: &Endpoint) -> Result<(), GatewayError> {
    *request.version_mut() = Version::HTTP_2;
    if request.uri().authority().is_some() {
        return Ok(());
    }
    let host = request.headers_mut().remove(HOST);
    let host = host
        .as_ref()
        .map_or(endpoint.written.as_bytes(), |h| h.as_bytes());
    let authority =
        uri::Authority::try_from(host).map_err(|e| GatewayError::caused(Reason::BadRequest, e))?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let tls = endpoint.server_name.is_some();
    parts.scheme = Some(if tls {
        uri::Scheme::HTTPS
    } else {
        uri::Scheme::HTTP
    });
    parts.authority = Some(authority);
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|e| GatewayError::caused(Reason::BadRequest, e))?;
    Ok(())
}

/// Judges an answer's framing. `false`: its connection is not to be used again.
pub(super) fn judge<B>(
    response: &mut http::Response<B>,
    to_head: bool,
) -> Result<bool, GatewayError> {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(true);
    };
    let chunked = coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    let bodiless = to_head
        || matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    if !bodiless && (!chunked || codings.next().is_some()) {
        return Err(Reason::HttpProtocolError.into());
    }
    let headers = response.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    let both = headers.remove(CONTENT_LENGTH).is_some();
    Ok(!both)
}

/// The same answer, with nothing in it.
pub(super) fn without_body(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_LENGTH, 0.into());
    *response.body_mut() = Body::empty();
    response
}
