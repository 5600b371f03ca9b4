//! The one interface there is, the loopback interface, as ioctl(2) shows it (netdevice(7)).

use super::addr::AF_INET;
use crate::errno::Errno;

/// Its name.
pub const NAME: &str = "lo";
/// IFF_UP, IFF_LOOPBACK, IFF_RUNNING.
const FLAGS: u16 = 0x49;
/// ARPHRD_LOOPBACK.
pub const HARDWARE: u16 = 772;
/// `sizeof(struct ifreq)`.
pub const REQUEST: usize = 40;
/// Length of a name in it.
pub const NAME_LEN: usize = 16;
/// Packets that may wait to be sent.
pub const QUEUE: u32 = 1000;

/// A `struct sockaddr_in`.
fn address(ip: [u8; 4]) -> Vec<u8> {
    let mut bytes = AF_INET.to_le_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(ip);
    bytes
}

/// The `struct ifreq` of the loopback interface with its address: what SIOCGIFCONF lists.
pub fn configuration() -> Vec<u8> {
    let mut bytes = NAME.as_bytes().to_vec();
    bytes.resize(NAME_LEN, 0);
    bytes.extend(address([127, 0, 0, 1]));
    bytes.resize(REQUEST, 0);
    bytes
}

/// Answers a SIOCGIF request in a `struct ifreq`; `Ok(None)` for requests that are none of these. Writes that change nothing are
/// accepted from root. ENODEV, EPERM, EINVAL.
pub fn request(request: u32, ifreq: &[u8; REQUEST], root: bool) -> Result<Option<[u8; REQUEST]>, Errno> {
    let (name, rest) = ifreq.split_at(NAME_LEN);
    let named = name.split(|b| *b == 0).next().unwrap_or_default();
    // An alias is looked up by what stands before its colon.
    let known = named.split(|b| *b == b':').next() == Some(NAME.as_bytes());
    let index = rest.first_chunk::<4>().map_or(0, |b| i32::from_le_bytes(*b));
    let value = match request {
        0x8910 if index == 1 => {
            let mut out = *ifreq;
            let mut padded = NAME.as_bytes().to_vec();
            padded.resize(NAME_LEN, 0);
            for (to, from) in out.iter_mut().zip(padded) {
                *to = from;
            }
            return Ok(Some(out));
        }
        0x8910 => return Err(Errno::ENODEV),
        0x8913..=0x8927 | 0x8929 | 0x8933 | 0x8942 | 0x8943 | 0x8946 | 0x8970 if !known => {
            return Err(Errno::ENODEV);
        }
        0x8913 => FLAGS.to_le_bytes().to_vec(),      // SIOCGIFFLAGS
        0x8914 if !root => return Err(Errno::EPERM), // SIOCSIFFLAGS
        0x8914 if rest.first().is_some_and(|b| b & 1 != 0) => Vec::new(), // it is up and stays so
        0x8914 => return Err(Errno::EPERM),
        0x8915 | 0x8917 => address([127, 0, 0, 1]), // SIOCGIFADDR, SIOCGIFDSTADDR
        0x8919 => address([0, 0, 0, 0]),            // SIOCGIFBRDADDR
        0x891b => address([255, 0, 0, 0]),          // SIOCGIFNETMASK
        0x891d => vec![0; 4],                       // SIOCGIFMETRIC
        0x8921 => super::options::MTU.to_le_bytes().to_vec(), // SIOCGIFMTU
        0x8927 => {
            let mut bytes = HARDWARE.to_le_bytes().to_vec(); // SIOCGIFHWADDR
            bytes.resize(16, 0);
            bytes
        }
        0x8933 => 1i32.to_le_bytes().to_vec(),   // SIOCGIFINDEX
        0x8942 => QUEUE.to_le_bytes().to_vec(),  // SIOCGIFTXQLEN
        0x8970 => vec![0; 24],                   // SIOCGIFMAP
        0x8946 => return Err(Errno::EOPNOTSUPP), // SIOCETHTOOL
        0x8916 | 0x8918 | 0x891a | 0x891c | 0x891e | 0x8922 | 0x8923 | 0x8924 | 0x8943 => {
            return Err(Errno::EPERM);
        }
        _ => return Ok(None),
    };
    let mut out = *ifreq;
    for (to, from) in out.iter_mut().skip(NAME_LEN).zip(value) {
        *to = from;
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..name.len()].copy_from_slice(name);
        bytes
    }

    #[test]
    fn the_loopback_interface_answers_and_no_other() {
        let out = request(0x8913, &named(b"lo"), false).unwrap().unwrap();
        assert_eq!(u16::from_le_bytes([out[16], out[17]]), FLAGS);
        assert_eq!(request(0x8913, &named(b"eth0"), false), Err(Errno::ENODEV));
        assert_eq!(request(0x1234, &named(b"lo"), false), Ok(None));
        let mut by_index = named(b"");
        by_index[16] = 1;
        assert_eq!(&request(0x8910, &by_index, false).unwrap().unwrap()[..3], b"lo\0");
        assert_eq!(request(0x8916, &named(b"lo"), true), Err(Errno::EPERM));
    }
}
