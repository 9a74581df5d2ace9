"""A participant: one of the programs that run between the call and the new kernel, and its
contract.

    the call -> way out of long mode? -> relocation code -> purgatory? -> entry stub -> the new kernel

    Code          a routine's bytes and symbols
    Contract      how a participant is called, what it may touch, how long the old kernel's state may
                  still be in use, and what it promises
    Participant   a name, its code, its landmarks, its contract

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Rules of `check` ask a contract
and never a name, so that somebody else's code is judged by what it says of itself.  Whoever adds a
participant writes one file in `participants`; a word that is missing here is added here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.walk import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A routine's bytes, assembled or cut out of an image; `symbols` are offsets into `data`."""

    name: str
    data: bytes
    symbols: Mapping[str, int]


class Kind(StrEnum):
    """What a participant is for; the value is what a report calls it."""

    WAY_OUT = "way out of long mode"
    RELOCATION = "relocation code"
    PURGATORY = "purgatory"
    STUB = "entry stub"


class Given(StrEnum):
    """What a call hands over in one register or one word of memory."""

    LIST = "the first word of the page list (kimage->head)"
    LIST_PAGE = "the address of the page list's first page"
    CONTROL_PAGE = "P, the physical address of the control page"
    V = "V"
    ENTRY = "the address that is jumped to when all is copied"
    TABLE_A = "the root of page_table_a"
    TABLE_B = "the root of page_table_b"
    PAGE_ARRAY = "the address of the array of pages (page_list)"
    FUNCTION = "the physical address of the code at V"
    DIRECT_MAP = "where the old kernel's direct map begins"
    LEVELS = "the first of the zero tables in the old kernel's image"
    FLAGS = "flags, as the routine has them"
    HAS_PAE = "1 where the CPU has PAE"
    PRESERVE_CONTEXT = "1 where the old kernel wants to come back"
    HOST_MEM_ENC = "1 where memory is encrypted (SME)"
    CONTROL_PAGE_MAPPED = "the address of the control page in the old kernel's direct map"
    SWAP_PAGE = "the physical address of the swap page"
    NOTHING = "0"


class Trees(Enum):
    """Which trees of page tables it is handed, and whose they are; `handover` builds them.

    Paging is off in step 5 of i386 and PAE: there is no page_table_b then.
    """

    TWO = "two"
    """page_table_a: V and P, each to the control page.  page_table_b: what is needed, each to
    itself."""
    CHAINS = "chains"
    """The same, page_table_a's two chains written over one another where they share a slot."""
    ONE = "one"
    """One tree for both: what is needed, each to itself, and V."""
    WHOLE_MEMORY = "whole memory"
    """As ONE, of all memory, in large pages whatever else they cover: what Linux builds."""
    SMALL_PAGES = "small pages"
    """As ONE, a hypervisor's own, in pages of 4 KiB alone."""
    CURRENT = "current"
    """The current pgd, which the code at V itself overwrites, and a page_table_b."""
    IN_IMAGE = "in the image"
    """page_table_a is the old kernel's from the beginning, and lies in its image; a page_table_b.
    """


class Place(Enum):
    """Memory that a participant may touch besides what the page list has it copy."""

    # An enum's own goes through Python, and every rule asks for one.
    __hash__ = object.__hash__

    CONTROL_PAGE = "control page"
    OWN_PAGE = "own page"
    """The page that a stub lies in, its stack with it."""
    IN_IMAGE = "in the image"
    """Tables in the old kernel's image that are there for this."""
    CODE_AT_V = "code at V"
    ARGUMENTS = "arguments"
    """What the call hands over in memory: words on a stack, an array of pages."""
    PAGE_LIST = "page list"
    PURGATORY = "purgatory"
    """All of its segment; to write, what of it is its own where that is known."""
    SEGMENTS = "segments"
    """What the list has copied, the kernel and what it is handed, where it lies then."""
    SWAP_PAGE = "swap page"
    """A page beside the control page, through which each page is copied."""
    LOW_MEMORY = "low memory"
    """What a crash kexec saves of it, and only that."""
    BACKUP = "backup"
    """Where that is saved, in the crash region."""


class Old(Enum):
    """What of the old kernel may still be in use after the call, for a while."""

    __hash__ = object.__hash__  # as of Place

    IDT = "idt"
    STACK = "stack"
    MEMORY = "memory"
    """Its gdt, text and tables, read under its own pgd."""


class Promise(Enum):
    """What a participant promises for the walk; a rule whose promise is not given is not broken by
    it."""

    __hash__ = object.__hash__  # as of Place

    GLOBALS_DROPPED = "globals dropped"
    """CR4.PGE is cleared before an identity address is trusted."""
    IDT_DROPPED = "idt dropped"
    """The old kernel's idt is given up before its handlers are out of reach."""
    STACK_IN_CONTROL_PAGE = "stack in the control page"
    COPIES_ONCE = "copies once"
    """Every page that is not in place is copied once, in the list's order, by string moves.

    What is copied word by word is seen as loads and stores, which a walk may not do there.
    """
    NOTHING_ELSE_MAPPED = "nothing else mapped"
    """The table in use while tables are switched maps the control page twice and no more."""

    EXACT_TABLES = "exact tables"
    """What is mapped after step 5 is needed: no hole, no reserved range."""


class Done(Enum):
    """What the old kernel's C code has done before the call."""

    INTERRUPTS_OFF = "interrupts off"
    DESCRIPTORS_GONE = "descriptor tables gone"
    """idt and gdt have limit 0."""
    SEGMENTS_LOADED = "data segments loaded"
    BRANCHES_UNTRACKED = "branch tracking off"
    """IA32_S_CET is 0: CR4.CET may be set, and tracks nothing."""
    CET_OFF = "CET off"
    """CR4.CET is cleared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """An idt inside the code page, which is filled in when the image is loaded.

    `count` gates from the label `idt`; gate N leads to `stride` * N bytes behind the label
    `handlers`.
    """

    idt: str
    handlers: str
    stride: int
    count: int
    selector: int


EVERY_PROMISE = frozenset(Promise)
WALK_OWNS = frozenset({Place.CONTROL_PAGE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a participant is handed, what it may touch, and what it owes.

    `arguments` says where each thing is: a register of `Registers.general`, or "rsp+N" for the word
    N bytes above the stack pointer at the call.  `old` has the last step in which something of the
    old kernel's may be in use; what is not in it may not be used at all.
    """

    arguments: Mapping[str, Given] = field(default_factory=dict)
    trees: Trees = Trees.TWO
    stays_at_v: bool = False
    """The code at V is the old kernel's own page to the end; the control page holds other code."""
    clears: bool = False
    """It knows a page without a source, Xen's IND_ZERO."""
    reads: frozenset[Place] = WALK_OWNS | {Place.PAGE_LIST, Place.ARGUMENTS}
    writes: frozenset[Place] = WALK_OWNS
    old: Mapping[Old, Step] = field(default_factory=lambda: {Old.IDT: Step.STATE})
    promises: frozenset[Promise] = EVERY_PROMISE
    array: tuple[Given, ...] = ()
    """What the array of pages holds, word by word, where the old kernel makes one on its stack."""
    words: Mapping[str, Given] = field(default_factory=dict)
    """Words of the code page that are filled in when the image is loaded, by their labels."""
    gates: Gates | None = None
    same: int = PAGE_SIZE
    """Bytes of the control page that are those at V; what follows in it is the routine's to write.
    """
    done: frozenset[Done] = frozenset()
    digest: str | None = None
    """The label of a function that makes a SHA-256: rdi the result, rsi the first byte, rdx how
    many."""

    def where(self, given: Given) -> str | None:
        """The register or word that has it; None where it is not handed over."""
        return next((at for at, what in self.arguments.items() if what is given), None)

    @property
    def one_tree(self) -> bool:
        """One tree serves before and after step 5, so that V is in it beside the identity map."""
        return self.trees in (Trees.ONE, Trees.WHOLE_MEMORY, Trees.SMALL_PAGES)

    @property
    def live(self) -> bool:
        """There is no page_table_a of its own: the walk goes on under the current pgd."""
        return self.trees is Trees.CURRENT


@dataclass(frozen=True, kw_only=True, slots=True)
class Participant:
    """One program of the chain between call and entry.

    `landmarks` name the labels at which a step has begun: those before step 4 are reached at V, in
    the code there, the others at the control page's own address.
    """

    name: str
    kind: Kind
    code: Code
    contract: Contract
    landmarks: Mapping[str, Step] = field(default_factory=dict)
    image: str | None = None
    """The old kernel's image that its bytes were found in; None for code that is not an old
    kernel's."""
    file: str | None = None
    """The user's own file that its bytes come from; None for code that is not the user's."""
    at_v: Code | None = None
    """The code at V where it is not the control page's."""
    own: tuple[Extent, ...] = ()
    """Of a purgatory: the memory that it may write, its variables and its stack."""

    @property
    def called(self) -> Code:
        """The code at V, whatever page it lies in."""
        return self.code if self.at_v is None else self.at_v

    def begins(self, step: Step) -> int | None:
        """The offset at which a step has begun, in the page where it does; None where no label
        tells."""
        symbols = (self.called if step < Step.IDENTITY else self.code).symbols
        named = (symbols.get(label) for label, at in self.landmarks.items() if at is step)
        return next((offset for offset in named if offset is not None), None)


def relocation_code(chain: Sequence[Participant]) -> Participant:
    """The program of a chain that switches tables and copies: there is one in each."""
    return next(each for each in chain if each.kind is Kind.RELOCATION)


def with_code(chain: Sequence[Participant], code: Code) -> tuple[Participant, ...]:
    """The chain with other bytes in the control page."""
    found = relocation_code(chain)
    return tuple(replace(each, code=code) if each is found else each for each in chain)
