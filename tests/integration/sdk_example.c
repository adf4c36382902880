/* The SDK in ten lines: sdk_example WHERE PROMPT PATH */
#include <weir.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    struct weir_client *client = NULL;
    struct weir_report *report = NULL;
    struct weir_error error = { 0 };
    struct weir_request request = WEIR_REQUEST_INIT;
    char job[WEIR_JOB_BYTES];
    if (argc != 4) return 64;
    request.prompt = argv[2];
    enum weir_status status = weir_client_open(argv[1], &client, &error);
    if (status == WEIR_OK) status = weir_client_submit(client, &request, NULL, job, &error);
    if (status == WEIR_OK) status = weir_client_wait(client, job, NULL, NULL, &report, &error);
    if (status == WEIR_OK) status = weir_client_fetch(client, report, 0, argv[3], &error);
    if (status != WEIR_OK) fprintf(stderr, "%s\n", error.words);
    weir_report_destroy(&report);
    weir_client_close(&client);
    return weir_status_exit_code(status);
}
