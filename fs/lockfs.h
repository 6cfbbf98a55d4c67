/*
 * lockfs.h: what a program may ask a handle of a lockfs mount, exactly and free of races.
 *
 * Each is an ioctl on a descriptor that was opened below the mount point. ENOTTY means that the
 * descriptor is no file of a lockfs.
 */
#ifndef LOCKFS_H
#define LOCKFS_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The fencing number of this handle's claim. ESTALE: the claim was lost. ENODATA: this handle never
 * held one, or has released it. */
#define LOCKFS_IOC_TOKEN _IOR('L', 1, __u64)

/* Milliseconds for which this node still counts the claim of this handle as valid without hearing
 * from the cluster. ESTALE and ENODATA as above. */
#define LOCKFS_IOC_LEASE _IOR('L', 2, __s64)

/* Send this signal to the calling process when the claim of this handle is lost; 0 cancels. EINVAL:
 * no such signal. One wish per handle, the last one counts. */
#define LOCKFS_IOC_ON_LOSS _IOW('L', 3, __s32)

/* Revoke every claim on this file, or the one with this number (not 0): for root and the owner of
 * the lock, else EPERM. ENODATA: there is no such claim. */
#define LOCKFS_IOC_FORCE _IOW('L', 4, __u64)

#endif
