//! The request that is to be explained: `'GET https://api.example.com/v1/x' -H 'k: v'`.
//!
//! Brought into the form in which routing sees it, or refused with the word a client would get.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::clock;
use crate::message::sketch::Sketch;
use crate::message::{Body, Conn, Exchange, Request, target};
use crate::plan::router::Question;

/// A request that nobody sent.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Lower case, without port; empty where the URL has none.
    pub host: String,
    /// Canonical path and query.
    pub uri: Uri,
    /// The fields, Host included.
    pub headers: HeaderMap,
    /// The client, as after the trusted proxies.
    pub client: IpAddr,
}

impl Asked {
    /// Reads `METHOD URL`, or a URL alone, and fields `name: value`.
    ///
    /// # Errors
    /// Says what is no request.
    pub fn parse(
        request: &str,
        fields: impl IntoIterator<Item = impl AsRef<str>>,
        client: Option<IpAddr>,
    ) -> Result<Asked, String> {
        let request = request.trim();
        let (method, url) = request.split_once(' ').unwrap_or(("GET", request));
        let method = Method::from_bytes(method.as_bytes());
        let method = method.map_err(|_| format!("\"{request}\" begins with no method"))?;
        let url: Uri = url
            .trim()
            .parse()
            .map_err(|_| format!("\"{url}\" is no URL"))?;
        let mut headers = HeaderMap::new();
        if let Some(authority) = url.authority() {
            headers.insert(HOST, value(authority.as_str())?);
        }
        for field in fields {
            let (name, text) = field
                .as_ref()
                .split_once(':')
                .ok_or_else(|| format!("\"{}\" is not \"name: value\"", field.as_ref()))?;
            let name = HeaderName::try_from(name.trim())
                .map_err(|_| format!("\"{name}\" is no field name"))?;
            headers.append(name, value(text.trim())?);
        }
        let client = client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Asked {
            method,
            host: host(&headers)?,
            uri: uri(&url)?,
            headers,
            client,
        })
    }

    /// As the router is asked.
    pub fn question(&self) -> Question<'_> {
        Question {
            host: &self.host,
            path: self.uri.path(),
            query: self.uri.query(),
            method: &self.method,
            headers: &self.headers,
        }
    }

    /// As a policy sees it.
    pub fn request(&self) -> (Request, Arc<Exchange>) {
        let peer = SocketAddr::new(self.client, 0);
        let conn = Arc::new(Conn::new("".into(), peer, peer, false, None));
        let (id, timeout) = (
            HeaderValue::from_static("explain"),
            std::time::Duration::MAX,
        );
        let sketch = Sketch::of(&self.headers);
        let exchange = Exchange::new(conn, clock::now(), self.client, id, sketch, timeout);
        let exchange = Arc::new(exchange);
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(Arc::clone(&exchange));
        (request, exchange)
    }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("\"{text}\" cannot stand in a field"))
}

fn host(headers: &HeaderMap) -> Result<String, String> {
    let Some(line) = headers.get(HOST) else {
        return Ok(String::new());
    };
    let name = line.to_str().ok().and_then(target::host);
    let name = name.ok_or_else(|| format!("{line:?} is no host: 400 bad_request"))?;
    Ok(name.name.into_owned())
}

/// In origin form, with a canonical path.
fn uri(url: &Uri) -> Result<Uri, String> {
    let path = target::path(url.path())
        .ok_or_else(|| format!("\"{}\" is no path: 400 bad_request", url.path()))?;
    let text = match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    text.parse().map_err(|_| format!("\"{text}\" is no target"))
}
