//! Formats rules and routers as tables.

use super::{
    exit::Failed,
    output::{Output, OutputFormat},
    table::{Column, Row},
};
use crate::resource::{RouterView, RuleView};

/// Prints rules, in one table if that fits, otherwise in one for each router.
pub(super) fn rules(output: &mut Output<'_>, rules: &[RuleView]) -> Result<(), Failed> {
    if output.format == OutputFormat::Json {
        return output.json(&rules);
    }
    let columns = [
        Column::Fixed("ROUTER"),
        Column::Fixed("ID"),
        Column::Fixed("PORT"),
        Column::Fixed("HELPER"),
        Column::Fixed("ORIGIN"),
        Column::State("STATUS"),
        Column::Text("REASON"),
    ];
    let row = |rule: &RuleView| -> Row {
        let reason = rule.status_reason.clone();
        vec![
            rule.router_id.to_string(),
            rule.id.to_string(),
            format!("{}/{}", rule.protocol, rule.port),
            rule.helper.to_string(),
            rule.origin.to_string(),
            rule.status.to_string(),
            reason.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = rules.iter().map(row).collect();
    if !output.overflows(&columns, &rows) {
        return output.table(&columns, &rows);
    }
    for of_router in rows.chunk_by(|one, other| one[0] == other[0]) {
        output.line(format_args!("router {}", of_router[0][0]))?;
        let rows: Vec<_> = of_router.iter().map(|row| row[1..].to_vec()).collect();
        output.table(&columns[1..], &rows)?;
    }
    Ok(())
}

/// Prints a rule.
pub(super) fn rule(output: &mut Output<'_>, rule: &RuleView) -> Result<(), Failed> {
    if output.format == OutputFormat::Json {
        return output.json(rule);
    }
    output.details(&[
        ("id", vec![rule.id.to_string()]),
        ("router", vec![rule.router_id.to_string()]),
        ("protocol", vec![rule.protocol.to_string()]),
        ("port", vec![rule.port.to_string()]),
        ("helper", vec![rule.helper.to_string()]),
        ("origin", vec![rule.origin.to_string()]),
        ("status", vec![rule.status.to_string()]),
        ("reason", rule.status_reason.iter().cloned().collect()),
    ])
}

/// Prints routers.
pub(super) fn routers(output: &mut Output<'_>, routers: &[RouterView]) -> Result<(), Failed> {
    if output.format == OutputFormat::Json {
        return output.json(&routers);
    }
    let columns = [
        Column::Fixed("ID"),
        Column::State("STATUS"),
        Column::Fixed("RULES"),
        Column::Text("NAME"),
        Column::Text("NAMESPACES"),
        Column::Text("REASON"),
    ];
    let row = |router: &RouterView| -> Row {
        let reason = router.status_reason.clone();
        vec![
            router.id.to_string(),
            router.status.to_string(),
            router.rules.to_string(),
            router.name.clone(),
            router.namespaces.join(" "),
            reason.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = routers.iter().map(row).collect();
    output.table(&columns, &rows)
}

/// Prints a router.
pub(super) fn router(output: &mut Output<'_>, router: &RouterView) -> Result<(), Failed> {
    if output.format == OutputFormat::Json {
        return output.json(router);
    }
    output.details(&[
        ("id", vec![router.id.to_string()]),
        ("name", vec![router.name.clone()]),
        ("status", vec![router.status.to_string()]),
        ("reason", router.status_reason.iter().cloned().collect()),
        ("rules", vec![router.rules.to_string()]),
        ("namespaces", router.namespaces.clone()),
    ])
}

/// Formats a rule and its router: `router 6ab1…: ftp on tcp port 21`.
pub(super) fn sentence(rule: &RuleView) -> String {
    format!(
        "router {}: {} on {} port {}",
        rule.router_id, rule.helper, rule.protocol, rule.port
    )
}
