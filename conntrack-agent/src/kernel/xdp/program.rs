//! The XDP program of an interface, and its mode.

use netlink_packet_core::{DecodeError, parse_u32};
use serde::Deserialize;

use crate::kernel::netlink::attribute;

/// The attributes `IFLA_XDP_ATTACHED` and `IFLA_XDP_PROG_ID` inside `IFLA_XDP`,
/// `include/uapi/linux/if_link.h`.
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;

/// The values `XDP_ATTACHED_NONE`, `XDP_ATTACHED_DRV` and `XDP_ATTACHED_SKB` there.
const ATTACHED_NONE: u8 = 0;
const ATTACHED_NATIVE: u8 = 1;
const ATTACHED_GENERIC: u8 = 2;

/// The point at which packets reach an XDP program.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum XdpMode {
    /// The program runs in the interface's driver, before there is an skb.
    #[serde(rename = "xdp")]
    Native,
    /// The program runs in the network stack, whatever the driver.
    #[serde(rename = "xdp-generic")]
    Generic,
}

impl XdpMode {
    /// Returns the mode's flag, `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE`,
    /// `include/uapi/linux/if_link.h`.
    pub(super) const fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// The kernel's id of the program; 0 where there are several, on the card
    /// and off it.
    pub id: u32,
    /// The mode; `None` for a program on the card itself, or for several.
    pub mode: Option<XdpMode>,
}

impl XdpProgram {
    /// Reads the attributes inside `IFLA_XDP`.
    pub(in crate::kernel) fn read(attributes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let attached = attribute(attributes, IFLA_XDP_ATTACHED)?;
        let mode = match attached.and_then(<[u8]>::first) {
            None | Some(&ATTACHED_NONE) => return Ok(None),
            Some(&ATTACHED_NATIVE) => Some(XdpMode::Native),
            Some(&ATTACHED_GENERIC) => Some(XdpMode::Generic),
            Some(_) => None,
        };
        let id = attribute(attributes, IFLA_XDP_PROG_ID)?;
        let id = id.map(parse_u32).transpose()?.unwrap_or_default();
        Ok(Some(Self { id, mode }))
    }
}
