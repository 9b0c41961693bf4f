//! What the tests of this backend share.

use backend_api::{abi_stable::std_types::RStr, contract::HostServices};

extern "C" fn nobody_listens(_: u32, _: RStr<'_>, _: RStr<'_>) {}

/// A host that does not listen.
pub const SERVICES: HostServices = HostServices {
    log: nobody_listens,
    level: 0,
    reserved: 0,
    reserved2: [0; 6],
};
