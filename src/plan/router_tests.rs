//! Precedence, refusals of ambiguity, and look-ups, over small route tables.

use super::*;

fn routes(text: &str) -> Vec<RouteConfig> {
    #[derive(serde::Deserialize)]
    struct Routes {
        routes: Vec<RouteConfig>,
    }
    toml::from_str::<Routes>(text).expect("routes").routes
}

/// Routes named by `[[routes]]` lines of `id | match`.
fn router(lines: &[(&str, &str)]) -> (Router, Problems, Vec<String>) {
    let text: String = lines
        .iter()
        .map(|(id, m)| format!("[[routes]]\nid = '{id}'\nmatch = {{ {m} }}\nrespond = {{}}\n"))
        .collect();
    let routes = routes(&text);
    let mut problems = Problems::new();
    let router = Router::compile(&routes, &mut problems);
    (
        router,
        problems,
        lines.iter().map(|l| l.0.to_owned()).collect(),
    )
}

fn ask(router: &Router, names: &[String], host: &str, uri: &str, method: Method) -> String {
    ask_with(router, names, host, uri, method, &HeaderMap::new())
}

fn ask_with(
    router: &Router,
    names: &[String],
    host: &str,
    uri: &str,
    method: Method,
    headers: &HeaderMap,
) -> String {
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    match router.find(Question {
        host,
        path,
        query,
        method: &method,
        headers,
    }) {
        Found::Route(route) => names[route].clone(),
        Found::Methods(methods) => format!("{methods:?}"),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn the_exact_host_wins_then_the_longer_wildcard_then_any() {
    let (router, problems, names) = router(&[
        ("any", "path = '/*'"),
        ("wide", "host = '*.test'"),
        ("deep", "host = '*.a.test'"),
        ("exact", "host = 'x.a.test', path = '/only'"),
    ]);
    assert!(problems.is_empty());
    let get = |host, uri| ask(&router, &names, host, uri, Method::GET);
    assert_eq!(get("x.a.test", "/only"), "exact");
    assert_eq!(get("x.a.test", "/else"), "deep");
    assert_eq!(get("y.b.test", "/"), "wide");
    assert_eq!(get("test", "/"), "any");
    assert_eq!(get("else.example", "/"), "any");
}

#[test]
fn a_request_that_the_first_choice_does_not_take_falls_to_the_next() {
    let (router, problems, names) = router(&[
        ("rest", "path = '/*'"),
        ("get", "path = '/v1/*', methods = ['GET']"),
        (
            "tenant",
            "path = '/v1/*', methods = ['GET'], headers = { x-tenant = '*' }",
        ),
        (
            "beta",
            "path = '/v1/*', methods = ['GET'], query = { v = '2' }",
        ),
        ("cross", "path = '/v1/{a}/c'"),
        ("cross2", "path = '/v1/b/{x}', methods = ['PUT']"),
    ]);
    assert!(problems.is_empty());
    let get = |uri| ask(&router, &names, "h", uri, Method::GET);
    assert_eq!(get("/v1/x"), "get");
    assert_eq!(get("/v1/x?v=2"), "beta");
    assert_eq!(get("/v1/x?v=3&v=2"), "beta");
    assert_eq!(get("/v1/b/c"), "cross");
    assert_eq!(ask(&router, &names, "h", "/v1/b/c", Method::PUT), "cross2");
    assert_eq!(ask(&router, &names, "h", "/v1/x", Method::POST), "rest");
    assert_eq!(ask(&router, &names, "h", "/v1/x", Method::HEAD), "get");
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("x-tenant"),
        HeaderValue::from_static("7"),
    )]);
    assert_eq!(
        ask_with(&router, &names, "h", "/v1/x?v=2", Method::GET, &headers),
        "tenant"
    );
}

#[test]
fn a_path_that_matches_with_no_such_method_names_those_that_would_do() {
    let (router, _, names) = router(&[("a", "path = '/a', methods = ['POST', 'PUT']")]);
    assert_eq!(ask(&router, &names, "h", "/a", Method::GET), "[POST, PUT]");
    assert_eq!(ask(&router, &names, "h", "/b", Method::GET), "nothing");
}

#[test]
fn a_header_is_matched_value_by_value() {
    let (router, _, names) = router(&[
        ("inner", "path = '/*', headers = { internal = 'true' }"),
        ("outer", "path = '/*'"),
    ]);
    let mut headers = HeaderMap::new();
    headers.append("internal", HeaderValue::from_static("true"));
    headers.append("internal", HeaderValue::from_static("true"));
    assert_eq!(
        ask_with(&router, &names, "h", "/", Method::GET, &headers),
        "inner"
    );
    let joined = HeaderMap::from_iter([(
        HeaderName::from_static("internal"),
        HeaderValue::from_static("true,true"),
    )]);
    assert_eq!(
        ask_with(&router, &names, "h", "/", Method::GET, &joined),
        "outer"
    );
}

#[test]
fn routes_that_take_the_same_requests_are_a_problem() {
    let (_, problems, _) = router(&[
        ("a", "path = '/x/{id}'"),
        ("b", "path = '/x/{name}'"),
        ("c", "path = '/x/{id}', methods = ['GET']"),
    ]);
    assert_eq!(problems.len(), 1);
    assert!(problems.sorted()[0].message.contains("\"a\" and \"b\""));
}

#[test]
fn ten_thousand_routes_are_told_apart() {
    let lines: Vec<(String, String)> = (0..10_000)
        .map(|i| {
            (
                format!("r{i}"),
                format!("host = 'h{}.test', path = '/p{i}/*'", i % 100),
            )
        })
        .collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|l| (l.0.as_str(), l.1.as_str())).collect();
    let (router, problems, names) = router(&lines);
    assert!(problems.is_empty());
    for i in (0..10_000).step_by(997) {
        let host = format!("h{}.test", i % 100);
        assert_eq!(
            ask(&router, &names, &host, &format!("/p{i}/x"), Method::GET),
            format!("r{i}")
        );
    }
}

#[test]
fn rules_that_are_only_written_differently_are_the_same() {
    let twins = [
        ("methods = ['GET', 'POST']", "methods = ['POST', 'GET']"),
        ("methods = ['GET', 'GET']", "methods = ['GET']"),
        ("methods = ['GET', 'HEAD']", "methods = ['GET']"),
        (
            "headers = { X-C = '1', b = '2' }",
            "headers = { x-c = '1', b = '2' }",
        ),
    ];
    for (one, other) in twins {
        let (_, problems, _) = router(&[("one", one), ("other", other)]);
        assert_eq!(problems.len(), 1, "{one} and {other}");
    }
    let (_, problems, _) = router(&[("one", "headers = { X-A = '1', x-a = '2' }")]);
    assert_eq!(problems.len(), 1);
    let (_, problems, _) = router(&[("one", "methods = ['GET']"), ("two", "methods = ['POST']")]);
    assert!(problems.is_empty());
}
