//! The `router` commands: work with the routers that the daemon knows.

use clap::Subcommand;

use super::{exit::Failed, output::Output, show};
use crate::{client::Client, model::RouterId};

#[derive(Debug, Subcommand)]
pub(super) enum RouterCommand {
    /// List the routers that have rules or namespaces on this host.
    List,
    /// Show a router.
    Show {
        /// The router.
        #[arg(value_name = "UUID")]
        id: RouterId,
    },
    /// Remove the rules that the API owns on a router; those of the rules file
    /// and of Neutron stay.
    ///
    /// With -o json the rules that went are printed.
    Clear {
        /// The router.
        #[arg(value_name = "UUID")]
        id: RouterId,
    },
}

impl RouterCommand {
    pub(super) fn execute(self, client: &Client, output: &mut Output<'_>) -> Result<(), Failed> {
        match self {
            Self::List => show::routers(output, &client.routers()?),
            Self::Show { id } => show::router(output, &client.router(id)?),
            Self::Clear { id } => {
                let gone = client.clear(id)?;
                output.resource(&gone, |output| match gone.len() {
                    0 => output.line(format_args!("router {id} had no rules of the API")),
                    1 => output.line(format_args!("router {id}: 1 rule is gone")),
                    more => output.line(format_args!("router {id}: {more} rules are gone")),
                })
            }
        }
    }
}
