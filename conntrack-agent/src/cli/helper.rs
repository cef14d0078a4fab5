//! The `helper` commands: work with rules, one at a time.

use clap::Subcommand;

use super::{
    exit::{Failed, Status},
    output::Output,
    show,
    terminal::printable,
    values::{self, HelperName},
};
use crate::{
    client::Client,
    model::{Port, Protocol, RouterId, RuleId},
};

#[derive(Debug, Subcommand)]
pub(super) enum HelperCommand {
    /// Give a router a rule: this helper for connections to this port.
    Create {
        /// The router.
        #[arg(long, value_name = "UUID")]
        router: RouterId,
        /// The protocol of the control connection.
        #[arg(long, value_name = "PROTOCOL", value_parser = values::protocol())]
        protocol: Protocol,
        /// The destination port of the control connection, 1 to 65535.
        #[arg(long, value_name = "PORT", value_parser = values::port, allow_negative_numbers = true)]
        port: Port,
        /// The conntrack helper.
        #[arg(long, value_name = "NAME", value_parser = values::helper())]
        helper: HelperName,
        /// The rule's id; by default the daemon makes one.
        #[arg(long, value_name = "UUID")]
        id: Option<RuleId>,
    },
    /// List rules.
    List {
        /// Those of this router alone.
        #[arg(long, value_name = "UUID")]
        router: Option<RouterId>,
    },
    /// Show a rule.
    Show {
        /// The rule.
        id: RuleId,
    },
    /// Let a rule say something else; what is not given stays.
    Set {
        /// The rule.
        id: RuleId,
        #[command(flatten)]
        changes: Changes,
    },
    /// Remove a rule.
    ///
    /// With -o json it is printed as it was.
    Delete {
        /// The rule.
        id: RuleId,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// The protocol of the control connection.
    #[arg(long, value_name = "PROTOCOL", value_parser = values::protocol())]
    protocol: Option<Protocol>,
    /// The destination port of the control connection, 1 to 65535.
    #[arg(long, value_name = "PORT", value_parser = values::port, allow_negative_numbers = true)]
    port: Option<Port>,
    /// The conntrack helper.
    #[arg(long, value_name = "NAME", value_parser = values::helper())]
    helper: Option<HelperName>,
}

impl HelperCommand {
    /// Checks arguments that are valid by themselves, but may be wrong together.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let pair = match self {
            Self::Create {
                helper, protocol, ..
            } => Some((helper, *protocol)),
            Self::Set { changes, .. } => changes.helper.as_ref().zip(changes.protocol),
            Self::List { .. } | Self::Show { .. } | Self::Delete { .. } => None,
        };
        let Some((helper, protocol)) = pair else {
            return Ok(());
        };
        helper
            .check(protocol)
            .map_err(|error| Failed(Status::Usage, error.into()))
    }

    pub(super) fn execute(self, client: &Client, output: &mut Output<'_>) -> Result<(), Failed> {
        match self {
            Self::Create {
                router,
                protocol,
                port,
                helper,
                id,
            } => {
                let rule = client.create(router, protocol, port, helper.as_str(), id)?;
                show::rule(output, &rule)
            }
            Self::List { router } => {
                let rules = match router {
                    Some(router) => client.rules_of(router)?,
                    None => client.rules()?,
                };
                show::rules(output, &rules)
            }
            Self::Show { id } => show::rule(output, &client.rule(id)?),
            Self::Set { id, changes } => {
                let helper = changes.helper.as_ref().map(HelperName::as_str);
                let rule = client.rule(id)?;
                let changed = client.update(&rule, changes.protocol, changes.port, helper)?;
                show::rule(output, &changed)
            }
            Self::Delete { id } => {
                let rule = client.rule(id)?;
                client.delete(&rule)?;
                output.resource(&rule, |output| {
                    let said = show::sentence(&rule);
                    output.line(format_args!("rule {id} is gone; {}", printable(&said)))
                })
            }
        }
    }
}
