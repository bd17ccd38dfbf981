/*
 * guest.S - a boot sector that copies its disk: 200 times 64 sectors, from sector 64 on to sector 16448 on, through the
 * BIOS; then it ends QEMU (isa-debug-exit) with status 33, or 35 if a read or write failed.
 */
	.code16
	.globl	_start
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
again:
	movw	$packet, %si
	movb	$0x42, %ah	/* read sectors */
	movb	$0x80, %dl	/* of the first disk */
	int	$0x13
	jc	failed
	addl	$16384, sector
	movw	$packet, %si
	movw	$0x4300, %ax	/* write them */
	movb	$0x80, %dl
	int	$0x13
	jc	failed
	subl	$16384 - 64, sector
	decw	count
	jnz	again
	movb	$0x10, %al
	outb	%al, $0xf4
failed:
	movb	$0x11, %al
	outb	%al, $0xf4
	hlt
count:	.word	200
packet:	.byte	16, 0
	.word	64		/* sectors */
	.word	0, 0x1000	/* to 1000:0000 */
sector:	.long	64, 0
	.org	510
	.word	0xaa55
