/* noop: a milter that does nothing but insert one header field. What libmilter itself costs.
 *
 *   noop SOCKET          SOCKET as smfi_setconn(3) wants it: local:/path
 *
 * It negotiates as mailguard does: every event but the end of the message without a reply.
 * libmilter calls back for each event all the same, so the callbacks are there and return at once.
 */
#include <libmilter/mfapi.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#define STEPS                                                                                      \
    (SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_HDR | SMFIP_NR_EOH | \
     SMFIP_NR_BODY | SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_HDR_LEADSPC)

static sfsistat negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long unused2,
                          unsigned long unused3, unsigned long *chosen_actions, unsigned long *chosen_steps,
                          unsigned long *out2, unsigned long *out3) {
    (void)ctx, (void)unused2, (void)unused3;
    if ((actions & SMFIF_ADDHDRS) == 0 || (steps & STEPS) != STEPS) return SMFIS_REJECT;
    *chosen_actions = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE;
    *chosen_steps = STEPS;
    *out2 = *out3 = 0;
    return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *address) {
    (void)ctx, (void)host, (void)address;
    return SMFIS_NOREPLY;
}

static sfsistat on_helo(SMFICTX *ctx, char *name) {
    (void)ctx, (void)name;
    return SMFIS_NOREPLY;
}

static sfsistat on_address(SMFICTX *ctx, char **arguments) {
    (void)ctx, (void)arguments;
    return SMFIS_NOREPLY;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value) {
    (void)ctx, (void)name, (void)value;
    return SMFIS_NOREPLY;
}

static sfsistat on_end_of_header(SMFICTX *ctx) {
    (void)ctx;
    return SMFIS_NOREPLY;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *chunk, size_t length) {
    (void)ctx, (void)chunk, (void)length;
    return SMFIS_NOREPLY;
}

static sfsistat on_end_of_message(SMFICTX *ctx) {
    return smfi_insheader(ctx, 0, "X-Noop", " yes") == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static struct smfiDesc description = {
    .xxfi_name = "noop",
    .xxfi_version = SMFI_VERSION,
    .xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE,
    .xxfi_connect = on_connect,
    .xxfi_helo = on_helo,
    .xxfi_envfrom = on_address,
    .xxfi_envrcpt = on_address,
    .xxfi_header = on_header,
    .xxfi_eoh = on_end_of_header,
    .xxfi_body = on_body,
    .xxfi_eom = on_end_of_message,
    .xxfi_negotiate = negotiate,
};

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: noop SOCKET\n");
        return EX_USAGE;
    }
    if (smfi_setconn(arguments[1]) != MI_SUCCESS || smfi_register(description) != MI_SUCCESS) {
        fprintf(stderr, "noop: libmilter refuses %s\n", arguments[1]);
        return EX_UNAVAILABLE;
    }
    return smfi_main() == MI_SUCCESS ? EX_OK : EX_SOFTWARE;
}
