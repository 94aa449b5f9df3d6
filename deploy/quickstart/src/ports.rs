//! Free ports: the wanted one, or the next that is free.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;

/// How many ports above the wanted one are tried.
const TRIES: u16 = 500;

/// The ports that this quickstart chose. Some time passes until a program listens on its port, so each is spoken for
/// meanwhile by an abstract socket of its number, which no second quickstart can bind and which ends with this process.
#[derive(Debug, Clone, Default)]
pub struct Chosen(Vec<Arc<UnixListener>>);

impl Chosen {
    /// The first port from `wanted` on that can be listened on at `address` and that no quickstart has spoken for.
    pub fn free_port(&mut self, address: IpAddr, wanted: u16) -> anyhow::Result<u16> {
        let last = wanted.saturating_add(TRIES);
        for port in wanted..=last {
            let Some(spoken_for) = speak_for(port) else { continue };
            match TcpListener::bind(SocketAddr::new(address, port)) {
                Ok(_) => {
                    self.0.push(Arc::new(spoken_for));
                    return Ok(port);
                }
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                    anyhow::bail!("{address} is no address of this machine: give one of `ip address` with --listen")
                }
                Err(_) => {}
            }
        }
        anyhow::bail!(
            "no port from {wanted} to {last} is free on {address}: free one, or choose another address with --listen"
        )
    }
}

fn speak_for(port: u16) -> Option<UnixListener> {
    let name = UnixAddr::from_abstract_name(format!("holdfast-quickstart-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_of_another_machine_is_no_busy_port() {
        // Of the block for documentation: no machine has it.
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let error = Chosen::default().free_port(other, 40_000).unwrap_err().to_string();
        assert!(error.contains("no address of this machine"), "{error}");
    }

    #[test]
    fn a_busy_port_and_one_that_another_start_chose_are_passed_over() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let busy = TcpListener::bind((local, 0)).unwrap();
        let wanted = busy.local_addr().unwrap().port();
        let (mut one, mut other) = (Chosen::default(), Chosen::default());
        let first = one.free_port(local, wanted).unwrap();
        let second = other.free_port(local, wanted).unwrap();
        assert!(first > wanted && second > first, "{wanted} {first} {second}");
        drop(one);
        assert_eq!(other.free_port(local, first).unwrap(), first);
    }
}
