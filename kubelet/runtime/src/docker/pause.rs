//! The program that holds a pod's namespaces, assembled here byte by byte.
//!
//! A registry need not be reachable and no toolchain present, and a program of some hundred bytes starts as fast
//! as anything can. It runs as process 1 of its namespace, where the kernel drops signals whose action is the
//! default one; so it blocks SIGTERM, SIGINT and SIGCHLD and takes them out of the queue one by one:
//!
//! ```text
//! mask = {SIGINT, SIGTERM, SIGCHLD}              // 1<<1 | 1<<14 | 1<<16 = 0x14002, on the stack
//! rt_sigprocmask(SIG_BLOCK, &mask, NULL, 8)
//! wait: signal = rt_sigtimedwait(&mask, NULL, NULL, 8)
//!       if signal == SIGCHLD: while wait4(-1, NULL, WNOHANG, NULL) > 0 {}; goto wait
//!       if signal < 0: goto wait                 // EINTR
//!       exit_group(0)
//! ```

const VIRTUAL_BASE: u64 = 0x40_0000;
const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
/// `e_machine` values of the ELF specification.
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

#[rustfmt::skip]
const X86_64: &[u8] = &[
    0x68, 0x02, 0x40, 0x01, 0x00,             //        push 0x14002
    0xb8, 0x0e, 0x00, 0x00, 0x00,             //        mov  eax, 14      rt_sigprocmask
    0x31, 0xff,                               //        xor  edi, edi     SIG_BLOCK
    0x48, 0x89, 0xe6,                         //        mov  rsi, rsp
    0x31, 0xd2,                               //        xor  edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       //        mov  r10d, 8
    0x0f, 0x05,                               //        syscall
    0xb8, 0x80, 0x00, 0x00, 0x00,             // wait:  mov  eax, 128     rt_sigtimedwait
    0x48, 0x89, 0xe7,                         //        mov  rdi, rsp
    0x31, 0xf6,                               //        xor  esi, esi
    0x31, 0xd2,                               //        xor  edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       //        mov  r10d, 8
    0x0f, 0x05,                               //        syscall
    0x83, 0xf8, 0x11,                         //        cmp  eax, 17      SIGCHLD
    0x74, 0x0d,                               //        je   reap
    0x85, 0xc0,                               //        test eax, eax
    0x78, 0xe3,                               //        js   wait
    0x31, 0xff,                               //        xor  edi, edi
    0xb8, 0xe7, 0x00, 0x00, 0x00,             //        mov  eax, 231     exit_group
    0x0f, 0x05,                               //        syscall
    0xb8, 0x3d, 0x00, 0x00, 0x00,             // reap:  mov  eax, 61      wait4
    0x48, 0x83, 0xcf, 0xff,                   //        or   rdi, -1
    0x31, 0xf6,                               //        xor  esi, esi
    0xba, 0x01, 0x00, 0x00, 0x00,             //        mov  edx, 1       WNOHANG
    0x45, 0x31, 0xd2,                         //        xor  r10d, r10d
    0x0f, 0x05,                               //        syscall
    0x85, 0xc0,                               //        test eax, eax
    0x7f, 0xe7,                               //        jg   reap
    0xeb, 0xbf,                               //        jmp  wait
];

#[rustfmt::skip]
const AARCH64: &[u32] = &[
    0xd288_0040,                              //        movz x0, #0x4002
    0xf2a0_0020,                              //        movk x0, #1, lsl #16
    0xf81f_0fe0,                              //        str  x0, [sp, #-16]!
    0xd280_10e8,                              //        movz x8, #135     rt_sigprocmask
    0xd280_0000,                              //        movz x0, #0       SIG_BLOCK
    0x9100_03e1,                              //        mov  x1, sp
    0xd280_0002,                              //        movz x2, #0
    0xd280_0103,                              //        movz x3, #8
    0xd400_0001,                              //        svc  #0
    0xd280_1128,                              // wait:  movz x8, #137     rt_sigtimedwait
    0x9100_03e0,                              //        mov  x0, sp
    0xd280_0001,                              //        movz x1, #0
    0xd280_0002,                              //        movz x2, #0
    0xd280_0103,                              //        movz x3, #8
    0xd400_0001,                              //        svc  #0
    0x7100_441f,                              //        cmp  w0, #17      SIGCHLD
    0x5400_00a0,                              //        b.eq reap
    0x37ff_ff00,                              //        tbnz w0, #31, wait
    0xd280_0000,                              //        movz x0, #0
    0xd280_0bc8,                              //        movz x8, #94      exit_group
    0xd400_0001,                              //        svc  #0
    0xd280_2088,                              // reap:  movz x8, #260     wait4
    0x9280_0000,                              //        movn x0, #0
    0xd280_0001,                              //        movz x1, #0
    0xd280_0022,                              //        movz x2, #1       WNOHANG
    0xd280_0003,                              //        movz x3, #0
    0xd400_0001,                              //        svc  #0
    0x7100_001f,                              //        cmp  w0, #0
    0x54ff_ff2c,                              //        b.gt reap
    0x17ff_ffec,                              //        b    wait
];

/// The executable for an architecture as Docker (`Info.Architecture`) or Go names it; `None` where there is none.
pub(crate) fn program(architecture: &str) -> Option<Vec<u8>> {
    match architecture {
        "x86_64" | "amd64" => Some(elf(EM_X86_64, X86_64)),
        "aarch64" | "arm64" => {
            let code: Vec<u8> = AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect();
            Some(elf(EM_AARCH64, &code))
        }
        _ => None,
    }
}

/// An image tag that changes when the program does (FNV-1a), so that an older image is never mistaken for it.
pub(crate) fn tag(program: &[u8]) -> String {
    let hash = program.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A static executable of one segment: the whole file, readable and executable.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let length = ELF_HEADER + PROGRAM_HEADER + code.len() as u64;
    let mut file = Vec::with_capacity(length as usize);
    // magic, 64 bits, little endian, version 1, System V, padding
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&(VIRTUAL_BASE + ELF_HEADER + PROGRAM_HEADER).to_le_bytes()); // entry
    file.extend_from_slice(&ELF_HEADER.to_le_bytes()); // program headers follow this header
    file.extend_from_slice(&0u64.to_le_bytes()); // no section headers
    file.extend_from_slice(&0u32.to_le_bytes()); // flags
    for half in [ELF_HEADER as u16, PROGRAM_HEADER as u16, 1, 0, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
    file.extend_from_slice(&5u32.to_le_bytes()); // PF_R | PF_X
    // offset, virtual and physical address, size in the file and in memory, alignment (the largest page size)
    for word in [0, VIRTUAL_BASE, VIRTUAL_BASE, length, length, 0x1_0000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn headers_are_where_the_specification_puts_them() {
        for architecture in ["x86_64", "aarch64"] {
            let file = program(architecture).unwrap();
            let entry = u64::from_le_bytes(file[24..32].try_into().unwrap());
            assert_eq!(entry, VIRTUAL_BASE + 120, "{architecture}");
            assert_eq!(u16::from_le_bytes(file[54..56].try_into().unwrap()), 56, "{architecture}");
            assert_eq!(u16::from_le_bytes(file[56..58].try_into().unwrap()), 1, "{architecture}");
            assert!(file.len() < 512, "{architecture}: {}", file.len());
        }
        assert_eq!(program("riscv64"), None);
        assert_ne!(tag(&program("x86_64").unwrap()), tag(&program("aarch64").unwrap()));
    }

    /// Runs outside a container too: ends with status 0 on SIGTERM, and SIGCHLD does not end it.
    #[test]
    fn ends_when_asked() {
        let Some(file) = program(std::env::consts::ARCH) else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, file).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCHLD).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        // The signal may come before the mask is set; then the default action ends it.
        assert!(status.code() == Some(0) || status.signal() == Some(15), "{status}");
    }
}
