//! Determines a request's operation from its method and path before it is answered, so
//! that the operation has the same name whether it is refused or done.

use axum::http::Method;

use crate::audit::RequestOperation;

/// Returns the operation of this method on this path.
pub(super) fn operation(method: &Method, path: &str) -> RequestOperation {
    let parts: Vec<_> = path.split('/').skip(1).take(6).collect();
    match (method.as_str(), &parts[..]) {
        // Scrapes take longer than other reads, and followers as long as they wait.
        (_, ["metrics"]) => RequestOperation::Scrape,
        (_, ["v1", "events"]) => RequestOperation::Follow,
        ("GET" | "HEAD", _) => RequestOperation::Read,
        ("PUT", ["v1", "conntrack_helpers"]) => RequestOperation::Apply,
        (method, ["v2.0", "routers", _, "conntrack_helpers", of_rule @ ..]) => {
            match (method, of_rule) {
                ("POST", []) => RequestOperation::Create,
                ("PUT", []) => RequestOperation::Replace,
                ("PUT", [_]) => RequestOperation::Update,
                ("DELETE", [_]) => RequestOperation::Delete,
                _ => RequestOperation::Unknown,
            }
        }
        _ => RequestOperation::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_that_changes_something_has_a_name_of_its_own() {
        let rules = "/v2.0/routers/6ab1c2d3-0a1b-4c2d-8e3f-0123456789ab/conntrack_helpers";
        let rule = format!("{rules}/7ab1c2d3-0a1b-4c2d-8e3f-0123456789ab");
        let deeper = format!("{rule}/more/and/more");
        for (method, path, name) in [
            (Method::POST, rules, "create"),
            (Method::PUT, rules, "replace"),
            (Method::PUT, &rule, "update"),
            (Method::DELETE, &rule, "delete"),
            (Method::PUT, "/v1/conntrack_helpers", "apply"),
            (Method::GET, "/v1/conntrack_helpers", "read"),
            (Method::HEAD, &rule, "read"),
            (Method::GET, "/nothing", "read"),
            (Method::GET, "/v1/events", "follow"),
            (Method::GET, "/metrics", "scrape"),
            (Method::DELETE, rules, "unknown"),
            (Method::POST, &rule, "unknown"),
            (Method::PUT, &deeper, "unknown"),
            (Method::PUT, "/v1/status", "unknown"),
            (Method::PATCH, &rule, "unknown"),
        ] {
            assert_eq!(operation(&method, path).name(), name, "{method} {path}");
        }
    }
}
