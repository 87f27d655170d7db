/* A library that answers like NVIDIA's (NVML), for machines without a GPU. What there is stands in the file that
 * FAKE_NVML_STATE names, read anew at every call, so that a test can change it while an agent runs:
 *
 *   gpu UUID BUS MEMORY NUMA LINKS MIG REMAP_FAILED ECC LOST NAME WITH SPACES     (LINKS: those with one number are joined; -1: none)
 *   mig PARENT UUID MEMORY NAME WITH SPACES
 *   xid UUID NUMBER                                                              (told once, to whoever listens from then on)
 *
 * Without the file there is no driver. Codes and layouts are those of nvml.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9,
       TIMEOUT = 10, GPU_IS_LOST = 15 };
enum { MOST = 64 };

typedef struct { char kind; char uuid[96], parent[96], bus[32], name[96]; unsigned long long memory, ecc;
                 int numa, links, mig, remap_failed, lost; } line_t;
typedef struct { char bus_legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; } pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_t;

static line_t lines[MOST];
static int line_count, xid_count;
static char xid_uuids[MOST][96];
static unsigned long long xids[MOST];
static char handles[MOST][96]; /* a handle points to a UUID, and stays when its device goes */
static int handle_count, opened, told;

static int load(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char text[512];
    line_count = xid_count = 0;
    if (!file) return 0;
    while (fgets(text, sizeof text, file)) {
        line_t line = {0};
        if (line_count < MOST
            && sscanf(text, "gpu %95s %31s %llu %d %d %d %d %llu %d %95[^\n]", line.uuid, line.bus, &line.memory, &line.numa,
                      &line.links, &line.mig, &line.remap_failed, &line.ecc, &line.lost, line.name) == 10) {
            line.kind = 'g';
            lines[line_count++] = line;
        } else if (line_count < MOST
                   && sscanf(text, "mig %95s %95s %llu %95[^\n]", line.parent, line.uuid, &line.memory, line.name) == 4) {
            line.kind = 'm';
            lines[line_count++] = line;
        } else if (xid_count < MOST && sscanf(text, "xid %95s %llu", xid_uuids[xid_count], &xids[xid_count]) == 2) {
            xid_count++;
        }
    }
    fclose(file);
    return 1;
}

static void *handle_of(const char *uuid) {
    for (int i = 0; i < handle_count; i++)
        if (!strcmp(handles[i], uuid)) return handles[i];
    if (handle_count == MOST) return NULL;
    strcpy(handles[handle_count], uuid);
    return handles[handle_count++];
}

static line_t *find(const char *uuid) {
    for (int i = 0; i < line_count; i++)
        if (!strcmp(lines[i].uuid, uuid)) return &lines[i];
    return NULL;
}

/* The line of a handle, its parent's loss being its own. */
static int look(void *handle, line_t **found) {
    if (!opened) return UNINITIALIZED;
    if (!load()) return GPU_IS_LOST;
    line_t *line = find(handle);
    line_t *parent = line && line->kind == 'm' ? find(line->parent) : line;
    if (!line || !parent || parent->lost) return GPU_IS_LOST;
    *found = line;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (!load()) return DRIVER_NOT_LOADED;
    if (!opened++) told = xid_count; /* what happened before is nobody's news */
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return opened ? (opened--, SUCCESS) : UNINITIALIZED; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!opened) return UNINITIALIZED;
    if (!load()) return DRIVER_NOT_LOADED;
    *count = 0;
    for (int i = 0; i < line_count; i++) *count += lines[i].kind == 'g';
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (!opened) return UNINITIALIZED;
    load();
    for (int i = 0; i < line_count; i++)
        if (lines[i].kind == 'g' && !index--) {
            if (lines[i].lost) return GPU_IS_LOST;
            *handle = handle_of(lines[i].uuid);
            return SUCCESS;
        }
    return INVALID_ARGUMENT;
}

#define WITH(handle) line_t *line; int status = look(handle, &line); if (status) return status

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) { WITH(handle); snprintf(text, size, "%s", line->uuid); return SUCCESS; }
int nvmlDeviceGetName(void *handle, char *text, unsigned size) { WITH(handle); snprintf(text, size, "%s", line->name); return SUCCESS; }
int nvmlDeviceGetNumaNodeId(void *handle, int *node) { WITH(handle); *node = line->numa; return line->numa < 0 ? NOT_SUPPORTED : SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    WITH(handle);
    *memory = (memory_t){line->memory, line->memory, 0};
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(void *handle, pci_t *pci) {
    WITH(handle);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%s", line->bus);
    return SUCCESS;
}
int nvmlDeviceGetP2PStatus(void *one, void *other, int index, int *result) {
    (void)index;
    int links = -1;
    {
        WITH(one);
        links = line->links;
    }
    WITH(other);
    *result = links >= 0 && links == line->links ? 0 : 5; /* OK, or not supported */
    return SUCCESS;
}
int nvmlDeviceGetRemappedRows(void *handle, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed) {
    WITH(handle);
    *correctable = *uncorrectable = *pending = 0;
    *failed = (unsigned)line->remap_failed;
    return SUCCESS;
}
int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *count) {
    (void)type, (void)counter;
    WITH(handle);
    *count = line->ecc;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    WITH(handle);
    *now = *pending = (unsigned)line->mig;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) { WITH(handle); *count = line->mig ? 7 : 0; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    WITH(handle);
    for (int i = 0; i < line_count; i++)
        if (lines[i].kind == 'm' && !strcmp(lines[i].parent, line->uuid) && !index--) {
            *instance = handle_of(lines[i].uuid);
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlEventSetCreate(void **set) { *set = &told; return opened ? SUCCESS : UNINITIALIZED; }
int nvmlEventSetFree(void *set) { (void)set; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) { (void)types, (void)set; WITH(handle); return SUCCESS; }
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
    (void)set, (void)timeout_ms;
    if (!opened) return UNINITIALIZED;
    load();
    if (told >= xid_count) return TIMEOUT;
    *event = (event_t){handle_of(xid_uuids[told]), 8, xids[told], 0, 0};
    told++;
    return SUCCESS;
}
