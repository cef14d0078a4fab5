//! `doctor`: asks the kernel and the configuration, and says what is wrong and what
//! would help.
//!
//! It needs no agent that runs, and changes nothing: what has to be tried is tried
//! in a namespace that is gone afterwards, as a start does. What can't be asked is
//! `unknown`, never `ok`, and keeps nothing else from being asked.

mod carrier;
mod finding;
mod helpers;
mod limits;
mod machine;
mod owner;
mod parameters;
mod programs;
mod reverse_path;
mod roots;
mod routers;
mod rules;

use std::io;

use crate::{
    config::Config,
    input::sentence,
    kernel::{self, AgentId, Hooks, MarkBits, Netns, Nft},
};
pub use finding::{Finding, Verdict};
use roots::Roots;

/// Looks at everything.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let roots = Roots::default();
    let missing = kernel::missing();
    // Where it is not allowed to ask, what the kernel refuses says nothing.
    let may_ask = missing.as_ref().is_ok_and(Vec::is_empty);
    let mut findings = vec![machine::kernel(&roots), machine::compiler(&roots)];
    findings.extend(machine::capabilities(missing));
    findings.push(machine::bpffs(config));
    let (owner, finding) = owner::find(config);
    findings.push(finding);
    // A name of nobody's, where there is none: it finds nothing of its own.
    let agent = owner.unwrap_or_else(AgentId::random);
    let hooks = Hooks::probe(agent);
    findings.push(machine::attach(config.attach, hooks.as_ref(), may_ask));
    let nft = Nft::new(&config.nft);
    findings.push(helpers::nft(&nft));
    let bits = MarkBits::new(config.mark_mask);
    let binding = bits.map(|bits| kernel::Binding::probe(nft, agent, bits));
    // Without bits a configuration isn't loaded.
    if let Some(probed) = &binding {
        findings.push(helpers::present(
            probed.as_ref(),
            &config.allowed(),
            may_ask,
        ));
    }
    let binding = binding.and_then(Result::ok);
    // After the probe, for which the kernel has loaded what it has as modules.
    findings.extend(parameters::check(&roots, &config.allowed()));

    let (routers, listed) = routers::find(config, may_ask);
    findings.extend(listed);
    findings.extend(limits::of_the_agent(config.limits, &routers));
    let carriers = carrier::look(config.carrier, binding.as_ref(), &routers);
    findings.extend(carriers.findings);
    findings.extend(rules::check(
        owner,
        config.mark_mask,
        &carriers.wanted,
        &routers,
    ));
    findings.extend(programs::check(hooks.as_ref().ok(), config, &routers));
    findings.extend(helpers::automatic(&roots, &routers));
    findings.extend(reverse_path::check(&roots, &config.interfaces(), &routers));
    findings.extend(limits::of_the_kernel(&roots, &routers));
    findings
}

/// What `read` finds inside the namespace.
fn within<T: Send>(netns: &Netns, read: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let entered = netns.enter(|| Ok(read()));
    entered.unwrap_or_else(|error| Err(io::Error::other(sentence(&error))))
}
