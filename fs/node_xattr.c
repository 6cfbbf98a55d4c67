/* Extended attributes: what a claimed file tells about its claim, for those who may look. */
#include <errno.h>
#include <string.h>

#include "node_internal.h"

static const char *const names[] = {
    NAMES_XATTR_PREFIX "token",
    NAMES_XATTR_PREFIX "node",
    NAMES_XATTR_PREFIX "mode",
};

enum { NAMES_COUNT = sizeof names / sizeof *names };

/* The claim that a file's attributes describe: of several the newest, which is whose number others
 * read from `token`. 0, or a negative errno: ENODATA where there is none. */
static int described_claim(const struct node *node, const struct node_request *request,
                           struct claim_view *ret_claim)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    struct lock_view lock;
    if (!inode)
        return -ESTALE;
    if (!inode->parent)
        return -ENODATA; /* a lock, or a control file */
    if (!lock_table_get_lock(node->table, inode->lock, &lock))
        return -ESTALE;
    /* The kernel asks for the file's own mode only. */
    if (!node__may(&lock, request, NODE_RIGHT_TO_LOOK))
        return -EACCES;
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    struct claim_view claim = {0};
    while (lock_table_prev_claim_on(node->table, lock.id, name, claim.token, &claim)) {
        if (node__visible_claim(node, &claim)) {
            *ret_claim = claim;
            return 0;
        }
    }
    return -ENODATA;
}

static void reply_data(struct node *node, uint32_t slot, const struct text *text)
{
    node__reply(node, &(struct node_reply){
                          .slot = slot, .type = NODE_REPLY_DATA, .data = {text->data, text->len}});
}

void node__getxattr(struct node *node, const struct node_request *request)
{
    struct claim_view claim;
    size_t which = 0;
    while (which < NAMES_COUNT && !(strlen(names[which]) == request->name.len &&
                                    !memcmp(names[which], request->name.data, request->name.len)))
        which++;
    int error = which < NAMES_COUNT ? described_claim(node, request, &claim) : -ENODATA;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    struct text value = {.data = node->data, .size = NODE_DATA_BYTES};
    if (which == 0)
        text_number(&value, claim.token);
    else if (which == 1)
        text_number(&value, claim.node);
    else
        text_string(&value, control__claim_mode(claim.claim_mode));
    reply_data(node, request->slot, &value);
}

void node__listxattr(struct node *node, const struct node_request *request)
{
    struct claim_view claim;
    struct text list = {.data = node->data, .size = NODE_DATA_BYTES};
    int error = described_claim(node, request, &claim);
    if (error == -ESTALE) {
        node__reply_error(node, request->slot, error);
        return;
    }
    /* What cannot be read is not listed: `ls` and `cp` ask about every file. */
    for (size_t i = 0; i < NAMES_COUNT && !error; i++)
        text_add(&list, (struct span){names[i], strlen(names[i]) + 1});
    reply_data(node, request->slot, &list);
}
