/* Tests of the C interface, in C: each returns NULL or what is wrong. */
#ifndef C_API_H
#define C_API_H

#ifdef __cplusplus
extern "C" {
#endif

const char *c_files(void);
const char *c_mapped_files(void);
const char *c_broken_files(void);
const char *c_outputs(const char *name); /* of an LSTM of the golden file */
const char *c_strides_and_lengths(void);
const char *c_states(void);
const char *c_streams(void);
const char *c_errors(void);
const char *c_null_pointers(void);

#ifdef __cplusplus
}
#endif

#endif
