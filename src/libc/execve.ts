import { lastErrno, nativeFunction, SystemCallError, stringArray } from './native-function.ts'

const execveCall = nativeFunction('int execve(const char *file, void *argv, void *envp)')

/**
 * Replaces this process. Returns only if the kernel refused, and then says why (process.execve would abort instead).
 * Arguments and environment may be bytes: UCSPI variables are not always UTF-8.
 */
export function execve(
  file: string,
  argv: readonly (string | Uint8Array)[],
  environment: readonly (string | Uint8Array)[],
): SystemCallError {
  execveCall(file, stringArray(argv), stringArray(environment))
  return new SystemCallError('execve', lastErrno())
}
