//! Devices as the user writes them: `auto`, `cuda37:0,cuda37:1`, `0`, `4x11441MiB`, `cpu:3x2GiB`.

use std::str::FromStr;

use super::size;

/// Most logical devices that one item may ask for.
const MOST: u32 = 64;

/// The devices that were asked for, all of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// The backend, if it was named.
    pub backend: Option<String>,
    /// What was asked for; nothing lets the host choose.
    pub items: Vec<Item>,
}

/// One item of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The device with this number.
    Real(u32),
    /// So many parts of the backend's first device, each with memory of its own.
    Logical {
        /// How many.
        count: u32,
        /// Bytes of each.
        bytes: u64,
    },
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut list = DeviceList::default();
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        for part in &parts {
            let (backend, device) = match part.split_once(':') {
                Some((backend, device)) => (Some(backend.to_owned()), device),
                None => (None, *part),
            };
            if let (Some(one), Some(other)) = (&list.backend, &backend)
                && one != other
            {
                return Err(format!("{one} and {other} are two backends; a model runs on one"));
            }
            list.backend = list.backend.or(backend);
            if device == "auto" {
                if parts.len() > 1 {
                    return Err("auto lets the host choose; it stands alone".into());
                }
                continue;
            }
            list.items.push(item(device).map_err(|why| format!("{part:?}: {why}"))?);
        }
        for (i, item) in list.items.iter().enumerate() {
            if let Item::Real(number) = item
                && list.items[..i].contains(item)
            {
                return Err(format!("device {number} stands there twice"));
            }
        }
        Ok(list)
    }
}

fn item(text: &str) -> Result<Item, String> {
    let expected = "no device; expected [BACKEND:]INDEX or [BACKEND:]COUNTxSIZE, such as 0, cpu:0 or 4x11441MiB";
    let number = |text: &str| text.parse::<u32>().map_err(|_| expected.to_owned());
    let Some((count, bytes)) = text.split_once(['x', '×']) else {
        return number(text).map(Item::Real);
    };
    match number(count.trim())? {
        count @ 1..=MOST => Ok(Item::Logical {
            count,
            bytes: size::parse(bytes)?,
        }),
        count => Err(format!("{count} devices; expected 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn logical(count: u32, mib: u64) -> Item {
        Item::Logical {
            count,
            bytes: mib << 20,
        }
    }

    #[rstest]
    #[case("auto", None, &[])]
    #[case("0", None, &[Item::Real(0)])]
    #[case("cuda37:0,cuda37:1", Some("cuda37"), &[Item::Real(0), Item::Real(1)])]
    #[case("cuda37:1, 0", Some("cuda37"), &[Item::Real(1), Item::Real(0)])]
    #[case("4x11441MiB", None, &[logical(4, 11441)])]
    #[case("cpu:3x2GiB,1x512M", Some("cpu"), &[logical(3, 2048), logical(1, 512)])]
    #[case("cuda37:auto", Some("cuda37"), &[])]
    fn lists_are_read(#[case] text: &str, #[case] backend: Option<&str>, #[case] items: &[Item]) {
        let list: DeviceList = text.parse().unwrap();
        assert_eq!((list.backend.as_deref(), list.items.as_slice()), (backend, items));
    }

    #[rstest]
    #[case("", "no device")]
    #[case("cpu", "no device")]
    #[case("-1", "no device")]
    #[case("0,0", "twice")]
    #[case("auto,0", "alone")]
    #[case("0,cpu:auto", "alone")]
    #[case("0x2GiB", "1 to 64")]
    #[case("2x2parsecs", "no size")]
    #[case("cpu:0,cuda37:0", "two backends")]
    fn others_are_refused(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<DeviceList>().unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
