//! The XDP program of an interface, and its mode.

/// The point at which packets reach an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The program runs in the interface's driver, before there is an skb.
    Native,
    /// The program runs in the network stack, whatever the driver.
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
