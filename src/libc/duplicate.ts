import { checked, nativeFunction } from './native-function.ts'

const fcntl = nativeFunction('int fcntl(int fd, int command, int argument)')
const F_DUPFD_CLOEXEC = 1030

/** Another descriptor, at least `lowest`, for the same open file; programs started later do not inherit it. Throws SystemCallError. */
export const duplicateDescriptor = (descriptor: number, lowest = 3): number =>
  checked('fcntl(F_DUPFD_CLOEXEC)', fcntl(descriptor, F_DUPFD_CLOEXEC, lowest))
