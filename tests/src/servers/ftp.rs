//! vsftpd.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::offer_file;
use crate::netns::Netns;
use crate::process::Process;
use crate::wait;

/// A running vsftpd that offers one file to anonymous.
pub struct FtpServer {
    /// What the file holds.
    pub bytes: Vec<u8>,
    _process: Process,
}

/// Big enough to need many segments after the data connection's handshake.
const SIZE: u64 = 300 * 1024;

impl FtpServer {
    /// Starts it on an address of the namespace.
    #[must_use]
    pub fn start(netns: &Netns, address: SocketAddr) -> Self {
        let name = format!("ftp-{}-{}", netns.name(), address.port());
        let folder = netns.lab().folder(&name);
        let root = netns.lab().folder(&format!("{name}/root"));
        let empty = netns.lab().folder(&format!("{name}/empty"));
        let bytes = offer_file(&root, SIZE);
        let config = folder.join("vsftpd.conf");
        let text = config_file(address, &root.to_string_lossy(), &empty.to_string_lossy());
        fs::write(&config, text).expect("vsftpd's configuration");

        // With `port_promiscuous`, vsftpd binds its data port without root.
        netns.sysctl("ipv4/ip_unprivileged_port_start", "0");
        let mut command = Command::new("vsftpd");
        command.arg(&config);
        let process = Process::start(Some(netns), command);
        let connect = || TcpStream::connect(address).ok();
        let ready = netns.run(|| wait::until(wait::patience(), connect));
        assert!(
            ready.is_some(),
            "vsftpd doesn't answer on {address}: {:?}",
            process.lines()
        );
        Self {
            bytes,
            _process: process,
        }
    }
}

fn config_file(address: SocketAddr, root: &str, empty: &str) -> String {
    let listen = match address.ip() {
        IpAddr::V4(ip) => format!("listen=YES\nlisten_address={ip}"),
        IpAddr::V6(ip) => format!("listen=NO\nlisten_ipv6=YES\nlisten_address6={ip}"),
    };
    let port = address.port();
    // RFC 959's default: servers beside each other don't share one.
    let data_port = port - 1;
    let connect_timeout = SERVER_CONNECTS.as_secs();
    // `port_promiscuous`: without a helper, a client behind SNAT announces an
    // address that isn't the one it comes from. The server shall try it, so
    // that what stops the data connection is the router and not the server.
    // `isolate_network`: active data connections are made by a process that
    // must stay in this namespace.
    format!(
        "{listen}
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
anon_root={root}
secure_chroot_dir={empty}
pasv_enable=YES
port_enable=YES
port_promiscuous=YES
connect_from_port_20=YES
ftp_data_port={data_port}
connect_timeout={connect_timeout}
accept_timeout={connect_timeout}
data_connection_timeout=10
xferlog_enable=NO
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
"
    )
}

const SERVER_CONNECTS: Duration = Duration::from_secs(4);
