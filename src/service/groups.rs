//! Groups of users, as the system's own database says: names to ids, and who belongs to which.
//! Decides nothing about permission.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The id of a group, given by its name or its id.
pub fn id(group: &str) -> std::io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match Group::from_name(group)? {
        Some(found) => Ok(found.gid.as_raw()),
        None => {
            let why = format!("no group is named {group:?}");
            Err(std::io::Error::new(std::io::ErrorKind::NotFound, why))
        }
    }
}

/// Whether the user belongs to one of `groups`, primary and supplementary ones alike. Asked of the
/// database each time, so a change there counts at once; a user it does not know is in none.
pub fn is_in_any(uid: u32, groups: &[u32]) -> bool {
    if groups.is_empty() {
        return false;
    }
    let found = of(uid).unwrap_or_else(|e| {
        log::warn!("the groups of user {uid} cannot be read: {e}");
        Vec::new()
    });
    found.iter().any(|gid| groups.contains(&gid.as_raw()))
}

fn of(uid: u32) -> nix::Result<Vec<Gid>> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else {
        return Ok(Vec::new());
    };
    // A name out of the database holds no zero byte.
    let Ok(name) = CString::new(user.name) else {
        return Ok(Vec::new());
    };
    getgrouplist(&name, user.gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_name_and_by_number() {
        assert_eq!(id("root").expect("every system has it"), 0);
        assert_eq!(id("4711").expect("a number"), 4711);
        let e = id("no-such-group").unwrap_err();
        assert!(e.to_string().contains("no-such-group"), "{e}");
    }

    #[test]
    fn root_is_in_its_own_group_and_a_stranger_in_none() {
        assert!(is_in_any(0, &[77_777, 0]));
        assert!(!is_in_any(0, &[77_777]));
        assert!(!is_in_any(u32::MAX - 5, &[0]));
    }
}
