//! Requests that change nothing: good ones, and bad ones that are refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use conntrack_tests::connection::Connection;
use conntrack_tests::curl::curl;
use serde_json::{Value, json};

const ROUTER: &str = "/v2.0/routers/00000000-0000-4000-8000-000000000000/conntrack_helpers";

/// Asks and asks until it is told to stop; how often.
pub(crate) fn bad_and_good(socket: &Path, stop: &AtomicBool) -> usize {
    let rule = |protocol: &str, port: Value, helper: &str| json!({"conntrack_helper": {"protocol": protocol, "port": port, "helper": helper}});
    let unknown = format!("{ROUTER}/11111111-1111-4111-8111-111111111111");
    let cases: [(&str, &str, Option<Value>, u16); 9] = [
        ("GET", "/v1/status", None, 200),
        ("GET", "/v1/conntrack_helpers", None, 200),
        ("GET", &unknown, None, 404),
        ("DELETE", &unknown, None, 404),
        ("GET", "/nowhere", None, 404),
        ("POST", ROUTER, Some(rule("tcp", json!(65536), "ftp")), 400),
        ("POST", ROUTER, Some(rule("tcp", json!(21), "gopher")), 400),
        ("POST", ROUTER, Some(rule("udp", json!(21), "ftp")), 400),
        ("POST", ROUTER, Some(json!({"conntrack_helper": 21})), 400),
    ];
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        // A new connection each time, and one that breaks off half-way.
        let mut connection = Connection::open(socket);
        for (method, path, body, status) in &cases {
            let answer = connection.ask(method, path, body.as_ref());
            assert_eq!(
                answer.status, *status,
                "{method} {path} {body:?}: {answer:?}"
            );
            asked += 1;
        }
        connection.send("GET", "/v1/conntrack_helpers", None);
        drop(connection);
        let nonsense = curl(socket, "POST", ROUTER, "{\"conntrack_helper\": ");
        assert_eq!(nonsense.status, 400, "{nonsense:?}");
        asked += 1;
        thread::sleep(Duration::from_millis(50));
    }
    asked
}
