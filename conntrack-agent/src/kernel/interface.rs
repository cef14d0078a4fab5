//! The interfaces of a namespace.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType};

use super::{Error, Netns};

/// A network interface of some namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, unique only inside its namespace.
    pub index: u32,
    /// Its name, at the moment when it was asked for.
    pub name: String,
    /// What kind of link it is.
    pub kind: Kind,
}

/// What matters about a link's layer 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets start with an Ethernet header.
    Ethernet,
    /// The loopback: nothing of a router's traffic enters there.
    Loopback,
    /// Anything else, a tunnel say.
    Other,
}

impl Netns {
    /// Its interfaces, by rising index.
    ///
    /// # Errors
    /// [`Error::Interfaces`] if netlink fails.
    pub fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let failed = |what| {
            move |source| Error::Namespace {
                name: self.name().to_owned(),
                what,
                source,
            }
        };
        self.enter(|| {
            // Of this thread: a netlink socket belongs to the namespace that
            // it was opened in.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .map_err(failed("no netlink socket can be polled"))?;
            runtime.block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().map_err(failed("has no netlink socket"))?;
                let connection = tokio::spawn(connection);
                let links: Result<Vec<_>, _> = handle.link().get().execute().try_collect().await;
                connection.abort();
                let links = links.map_err(|source| Error::Interfaces {
                    name: self.name().to_owned(),
                    source,
                })?;
                let mut interfaces: Vec<_> = links
                    .into_iter()
                    .map(|link| Interface {
                        index: link.header.index,
                        kind: kind(link.header.link_layer_type),
                        name: link
                            .attributes
                            .into_iter()
                            .find_map(|attribute| match attribute {
                                LinkAttribute::IfName(name) => Some(name),
                                _ => None,
                            })
                            .unwrap_or_default(),
                    })
                    .collect();
                interfaces.sort_by_key(|interface| interface.index);
                Ok(interfaces)
            })
        })
    }
}

const fn kind(layer: LinkLayerType) -> Kind {
    match layer {
        LinkLayerType::Ether => Kind::Ethernet,
        LinkLayerType::Loopback => Kind::Loopback,
        _ => Kind::Other,
    }
}
