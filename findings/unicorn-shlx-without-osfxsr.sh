#!/usr/bin/env bash
# Unicorn promises BMI2 in CPUID and raises #UD for SHLX as long as CR4.OSFXSR is 0; SHRX and SARX run.
#
# Seen with unicorn 2.1.4 (PyPI), CPU model ICELAKE_SERVER, 64-bit mode.
# Guess beforehand: CR4.OSFXSR decides over instructions with an XMM register (SDM volume 3, 2.5), and BMI
# works on general registers, so that all of BMI1, BMI2 and ADX run whatever CR4 says.  The translator takes
# every 0F 38 and 0F 3A opcode with the prefix 66 for one of SSE: of BMI2 that is SHLX, of ADX ADCX (ADOX
# runs), and the 16-bit forms of MOVBE and CRC32.
#
# What it costs: kexec hands a kernel over with CR4.OSFXSR = 0, and Linux's zstd decompressor takes its BMI2
# variant where CPUID has BMI1 and BMI2: every zstd kernel of Debian since 6.12 dies in it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check unicorn==2.1.4 setuptools
"$work/venv/bin/python" - <<'PYTHON'
import sys

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

CODE, OSFXSR, BMI2, ADX = 0x1000, 1 << 9, 1 << 8, 1 << 19
WORDS = {
    "shlx %ecx,%ecx,%eax": "c4e271f7c1",
    "shrx %ecx,%ecx,%eax": "c4e273f7c1",
    "sarx %ecx,%ecx,%eax": "c4e272f7c1",
    "mulx %ecx,%eax,%eax": "c4e27bf6c1",
    "adcx %ecx,%eax": "660f38f6c1",
    "adox %ecx,%eax": "f30f38f6c1",
}


def run(code: bytes, osfxsr: bool) -> tuple[unicorn.Uc, str]:
    uc = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.mem_map(CODE, 0x1000)
    uc.mem_write(CODE, code)
    cr4 = uc.reg_read(x86.UC_X86_REG_CR4)
    uc.reg_write(x86.UC_X86_REG_CR4, cr4 | OSFXSR if osfxsr else cr4 & ~OSFXSR)
    uc.reg_write(x86.UC_X86_REG_RAX, 7)
    uc.reg_write(x86.UC_X86_REG_RCX, 0)
    try:
        uc.emu_start(CODE, CODE + len(code))
    except unicorn.UcError as err:
        return uc, "#UD" if err.errno == const.UC_ERR_INSN_INVALID else str(err)
    return uc, "runs"


print("unicorn", unicorn.__version__)
cpu, _ = run(b"\x0f\xa2", False)
leaf7 = cpu.reg_read(x86.UC_X86_REG_RBX)
print(f"CPUID leaf 7, ebx: BMI2 {bool(leaf7 & BMI2)}, ADX {bool(leaf7 & ADX)}")
seen = {}
for text, code in WORDS.items():
    seen[text] = tuple(run(bytes.fromhex(code), osfxsr)[1] for osfxsr in (False, True))
    print(f"{text:22} OSFXSR=0: {seen[text][0]:5}  OSFXSR=1: {seen[text][1]}")
as_seen = {
    text: ("#UD" if text.startswith(("shlx", "adcx")) else "runs", "runs") for text in WORDS
}
sys.exit(not (leaf7 & BMI2 and leaf7 & ADX and seen == as_seen))
PYTHON
