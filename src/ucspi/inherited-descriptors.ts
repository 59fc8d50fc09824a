import { readdirSync, readlinkSync } from 'node:fs'

/**
 * Descriptors above 2 that this process was started with and the runtime did not open itself; ask
 * before anything is opened.
 * The runtime marks them close-on-exec; who runs another program in its place must give them on
 * (relay-ctrl passes a directory so).
 */
export function inheritedDescriptors(): readonly number[] {
  const targets = new Map<number, string>()
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      targets.set(Number(name), readlinkSync(`/proc/self/fd/${name}`))
    } catch {
      // The descriptor of this very listing: closed by now.
    }
  }
  const all = [...targets.values()]
  // The runtime's own are event descriptors and pipes of which it holds both ends.
  const isOwn = (target: string) =>
    target.startsWith('anon_inode:') ||
    (target.startsWith('pipe:') && all.indexOf(target) !== all.lastIndexOf(target)) ||
    target === '/dev/urandom' ||
    target === process.execPath
  return [...targets].filter(([fd, target]) => fd > 2 && !isOwn(target)).map(([fd]) => fd)
}
