/* An oldstyle NBD server on stdin and stdout that reads past its buffer when a READ is longer than 4096 bytes. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int take(void *into, size_t count)
{
    for (char *at = into; count > 0;) {
        ssize_t got = read(0, at, count);
        if (got <= 0)
            return 0;
        at += got;
        count -= got;
    }
    return 1;
}

int main(void)
{
    static const unsigned char greeting[152] = "NBDMAGIC"
                                               "\x00\x00\x42\x02\x81\x86\x12\x53" /* oldstyle */
                                               "\x00\x00\x00\x00\x00\x01\x00\x00" /* 64 KiB */
                                               "\x00\x00\x00\x03";                /* read-only */
    unsigned char request[28], reply[16] = "\x67\x44\x66\x98";
    unsigned char *disk = calloc(1, 4096);
    write(1, greeting, sizeof greeting);
    while (take(request, sizeof request) && request[7] != 2) {
        uint32_t length;
        memcpy(&length, request + 24, 4);
        length = ntohl(length);
        memcpy(reply + 8, request + 8, 8);
        if (request[7] == 1)
            for (unsigned char byte; length > 0 && take(&byte, 1); length--)
                ;
        reply[7] = request[7] == 0 && length <= 65536 ? 0 : 22;
        write(1, reply, sizeof reply);
        if (reply[7] == 0) {
            unsigned char *data = malloc(length);
            memcpy(data, disk, length);
            write(1, data, length);
            free(data);
        }
    }
    free(disk);
    return 0;
}
