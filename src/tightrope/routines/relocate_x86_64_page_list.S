/*
 * relocate_x86_64.S as Xen's interface v1 calls it, in the control page and at the fixmap's V:
 *
 *      relocate_new_kernel(indirection_page, page_list, start_address)
 *      rdi  head                rsi  page_list, in the hypervisor's memory        rdx  start
 *
 * The machine addresses of the control page and of the two tables are taken from page_list's even
 * slots, once, while the hypervisor's tables are still loaded.  Everything else is the same code.
 */
	.set	PAGE_LIST, 1
	.include "relocate_x86_64.S"
