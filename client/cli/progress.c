#include "client/cli/progress.h"

#include "proto/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24, STEPS_A_LINE = 5 };

void weir_cli_progress_init(struct weir_cli_progress *progress, const char *label, bool quiet)
{
    *progress = (struct weir_cli_progress){ .label = label, .quiet = quiet, .terminal = isatty(2), .stage = "" };
}

static void remaining(const struct weir_cli_progress *p, const struct weir_progress *event, char out[32])
{
    out[0] = '\0';
    if (event->step <= p->first_step || !p->first_step_ms || event->step >= event->steps) return;
    const uint64_t passed_ms = weir_clock_now_ms() - p->first_step_ms;
    const uint64_t left_ms = passed_ms * (event->steps - event->step) / (event->step - p->first_step);
    snprintf(out, 32, "  %llu.%llu s left", (unsigned long long)(left_ms / 1000),
             (unsigned long long)(left_ms % 1000 / 100));
}

static void draw_bar(struct weir_cli_progress *p, const struct weir_progress *event)
{
    char bar[BAR + 1], left[32];
    const uint32_t filled = event->steps ? event->step * BAR / event->steps : 0;
    memset(bar, '#', filled);
    memset(bar + filled, '-', BAR - filled);
    bar[BAR] = '\0';
    remaining(p, event, left);
    if (event->steps) {
        fprintf(stderr, "\r\033[K%s%-8s [%s] %u/%u%s  task %u of %u", p->label, event->stage, bar, event->step, event->steps, left,
                event->tasks_done + 1 < event->tasks ? event->tasks_done + 1 : event->tasks, event->tasks);
    } else {
        fprintf(stderr, "\r\033[K%s%-8s %s  task %u of %u", p->label, event->stage, event->task_state,
                event->tasks_done + 1 < event->tasks ? event->tasks_done + 1 : event->tasks, event->tasks);
    }
    fflush(stderr);
    p->shown = true;
}

static void print_line(struct weir_cli_progress *p, const struct weir_progress *event, bool new_task)
{
    if (event->steps && (event->step >= p->step_printed + STEPS_A_LINE || event->step == event->steps)) {
        if (event->step == p->step_printed) return;
        char left[32];
        remaining(p, event, left);
        fprintf(stderr, "%s%s %u/%u%s\n", p->label, event->stage, event->step, event->steps, left);
        p->step_printed = event->step;
    } else if (new_task) {
        fprintf(stderr, "%s%s %u: %s\n", p->label, event->stage, event->index, event->task_state);
    }
}

bool weir_cli_progress_show(void *context, const struct weir_progress *event)
{
    struct weir_cli_progress *p = context;
    if (p->quiet || !event->stage || !event->tasks) return true;
    const bool new_task = strcmp(p->stage, event->stage) != 0 || p->index != event->index;
    if (new_task) {
        p->stage = event->stage;
        p->index = event->index;
        p->step_printed = 0;
        p->first_step_ms = 0;
    }
    if (event->steps && !p->first_step_ms && event->step) {
        p->first_step_ms = weir_clock_now_ms();
        p->first_step = event->step;
    }
    if (p->terminal) draw_bar(p, event);
    else print_line(p, event, new_task);
    return true;
}

void weir_cli_progress_clear(struct weir_cli_progress *progress)
{
    if (progress->shown) fprintf(stderr, "\r\033[K");
    progress->shown = false;
}
