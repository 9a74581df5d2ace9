/*
 * relocate_i386.S as the 32-bit Xen's interface v1 calls it, in the control page and at the fixmap's V:
 *
 *      relocate_new_kernel(indirection_page, page_list, start_address, has_pae)
 *      4(%esp) head    8(%esp) page_list, in the hypervisor's memory    12(%esp) start    16(%esp)
 *
 * The machine addresses of the control page and of page_table_a are taken from page_list's even slots,
 * once, while the hypervisor's tables and stack are still there.  Whether there is PAE is read from
 * CR4.  Everything else is the same code.
 */
	.set	PAGE_LIST, 1
	.include "relocate_i386.S"
