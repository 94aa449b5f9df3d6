//! Free ports: the wanted one, or the next that is free.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};

/// How many ports above the wanted one are tried.
const TRIES: u16 = 500;

/// The first port from `wanted` on that can be listened on at `address` and is not in `taken`; adds it to `taken`.
pub fn free_port(address: IpAddr, wanted: u16, taken: &mut BTreeSet<u16>) -> anyhow::Result<u16> {
    let last = wanted.saturating_add(TRIES);
    for port in wanted..=last {
        if !taken.contains(&port) && TcpListener::bind(SocketAddr::new(address, port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    anyhow::bail!(
        "no port from {wanted} to {last} is free on {address}: free one, or choose another address with --listen"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_busy_or_taken_port_is_passed_over() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let busy = TcpListener::bind((local, 0)).unwrap();
        let wanted = busy.local_addr().unwrap().port();
        let mut taken = BTreeSet::new();
        let first = free_port(local, wanted, &mut taken).unwrap();
        let second = free_port(local, wanted, &mut taken).unwrap();
        assert!(first > wanted && second > first, "{wanted} {first} {second}");
    }
}
