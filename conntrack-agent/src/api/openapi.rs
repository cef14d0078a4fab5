//! Adds to the OpenAPI document what no route describes: error answers and tokens.

use utoipa::{
    Modify, OpenApi, PartialSchema as _,
    openapi::{
        Components, ContentBuilder, HeaderBuilder, Ref, ResponseBuilder, SecurityRequirement,
        path::{Operation, ParameterIn},
        security::{ApiKey, ApiKeyValue, SecurityScheme},
    },
};

use super::error;

/// The parts of the OpenAPI document that are not routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "conntrack-agent",
        description = "Neutron's conntrack helper resources, and the agent's own resources. \
                       The kernel identifies a client of the Unix socket; a token identifies \
                       a client over TCP."
    ),
    components(schemas(error::ErrorBody))
)]
pub(super) struct Description;

/// Adds the error answers to each operation. They are made where requests are read, not by
/// a handler, so the parameters and the body of an operation determine which it can give.
pub(super) struct Refusals;

/// The property of an operation that makes an error answer possible.
#[derive(Clone, Copy)]
enum When {
    Always,
    HasParameter,
    HasPathParameter,
    HasBody,
    ChangedRules,
}

/// The error answers: status, name, description, and the operations that can give it.
const REFUSALS: [(&str, &str, &str, &[When]); 9] = [
    (
        "400",
        "BadRequest",
        "The path, the query or the body is invalid, or asks for something that is not allowed",
        &[When::HasParameter, When::HasBody],
    ),
    (
        "401",
        "Unauthorized",
        "The token is missing or unknown; over TCP only",
        &[When::Always],
    ),
    (
        "403",
        "Forbidden",
        "No grant allows this to the caller",
        &[When::Always],
    ),
    (
        "404",
        "NotFound",
        "The router or the rule does not exist",
        &[When::HasPathParameter],
    ),
    (
        "408",
        "RequestTimeout",
        "The body was not received in time",
        &[When::HasBody],
    ),
    (
        "409",
        "Conflict",
        "A rule has another owner, an id is taken, or a limit on rules or routers is reached",
        &[When::ChangedRules],
    ),
    (
        "413",
        "RequestTooLarge",
        "The body is larger than the limit",
        &[When::HasBody],
    ),
    (
        "415",
        "UnsupportedMediaType",
        "The Content-Type is not application/json",
        &[When::HasBody],
    ),
    (
        "503",
        "ServiceUnavailable",
        "The agent is overloaded or is stopping, or the kernel or the store failed",
        &[When::Always],
    ),
];

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (status, name, target, _) in REFUSALS {
            components
                .responses
                .insert(name.to_owned(), refusal(status, target).into());
        }
        for path in document.paths.paths.values_mut() {
            let changing = [&mut path.put, &mut path.post, &mut path.delete];
            for operation in changing.into_iter().flatten() {
                refuse(operation, true);
            }
            path.get
                .iter_mut()
                .for_each(|operation| refuse(operation, false));
        }
    }
}

/// Returns the error answer with this status.
fn refusal(status: &str, target: &str) -> utoipa::openapi::Response {
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(target)
        .content("application/json", content);
    if status != "503" {
        return response.build();
    }
    let seconds = HeaderBuilder::new()
        .schema(u32::schema())
        .description(Some("The number of seconds after which to try again"));
    response.header("Retry-After", seconds.build()).build()
}

/// Adds the error answers that an operation can give.
fn refuse(operation: &mut Operation, changes: bool) {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let is_in_path = |parameter: &utoipa::openapi::path::Parameter| {
        matches!(parameter.parameter_in, ParameterIn::Path)
    };
    let applies = |when: &When| match when {
        When::Always => true,
        When::HasParameter => !parameters.is_empty(),
        When::HasPathParameter => parameters.iter().any(is_in_path),
        When::HasBody => operation.request_body.is_some(),
        When::ChangedRules => changes,
    };
    for (status, name, _, when) in REFUSALS {
        if when.iter().any(applies) {
            let response = Ref::from_response_name(name);
            let responses = &mut operation.responses.responses;
            responses.insert(status.to_owned(), response.into());
        }
    }
}

/// Adds the token as a security scheme.
pub(super) struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::default);
        let target = "Required over TCP; ignored over the Unix socket.";
        let key = ApiKeyValue::with_description("X-Auth-Token", target);
        components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let nothing: [&str; 0] = [];
        let token = SecurityRequirement::new("token", nothing);
        document.security = Some(vec![token, SecurityRequirement::default()]);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::api::app::description;

    /// `CONNTRACK_WRITE_DOCS=1` writes the file instead of comparing it.
    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let mut text = description().to_pretty_json().unwrap();
        text.push('\n');
        if std::env::var_os("CONNTRACK_WRITE_DOCS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            return;
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "docs/openapi.json is not what the code says; write it anew with\n\
             CONNTRACK_WRITE_DOCS=1 cargo test -p conntrack-agent --lib api::openapi"
        );
    }

    /// Finds an error answer that no operation gives, and an operation that the table
    /// misses.
    #[test]
    fn every_operation_says_how_it_can_refuse() {
        let document = description();
        let statuses = |path: &str, method: &str| -> Vec<String> {
            let item = document.paths.get_path_item(path).unwrap();
            let operation = match method {
                "GET" => &item.get,
                "POST" => &item.post,
                "PUT" => &item.put,
                _ => &item.delete,
            };
            let responses = &operation.as_ref().unwrap().responses.responses;
            responses.keys().cloned().collect()
        };
        let rules = "/v2.0/routers/{router_id}/conntrack_helpers";
        let rule = "/v2.0/routers/{router_id}/conntrack_helpers/{id}";
        assert_eq!(statuses("/v1/status", "GET"), ["200", "401", "403", "503"]);
        let list = ["200", "400", "401", "403", "503"];
        assert_eq!(statuses("/v1/conntrack_helpers", "GET"), list);
        let list = ["200", "400", "401", "403", "404", "503"];
        assert_eq!(statuses(rules, "GET"), list);
        let delete = ["204", "400", "401", "403", "404", "409", "503"];
        assert_eq!(statuses(rule, "DELETE"), delete);
        let create = [
            "201", "400", "401", "403", "404", "408", "409", "413", "415", "503",
        ];
        assert_eq!(statuses(rules, "POST"), create);
        let apply = [
            "200", "400", "401", "403", "408", "409", "413", "415", "503",
        ];
        assert_eq!(statuses("/v1/conntrack_helpers", "PUT"), apply);
    }
}
