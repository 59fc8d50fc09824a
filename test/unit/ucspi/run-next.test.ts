import { spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findProgram } from '../../../src/ucspi/run-next.ts'

const directory = mkdtempSync(join(tmpdir(), 'run-next-'))
const module = (name: string) => JSON.stringify(join(import.meta.dirname, '../../../src/ucspi', `${name}.ts`))

/**
 * A program that changes its environment and replaces itself by a shell script; a shell command
 * line starts it.
 */
function chain(command: string, script: string, file = '/bin/sh') {
  const program = join(directory, 'program.mts')
  writeFileSync(
    program,
    `import { inheritance, runNext } from ${module('run-next')}
     const taken = inheritance()
     const failed = runNext(process.argv[2], ['next', ...process.argv.slice(3)], { RELAYCLIENT: '', GONE: undefined }, taken)
     console.error(failed.message)
     process.exit(111)`,
  )
  const result = spawnSync('/bin/bash', ['-c', command, process.execPath, program, file, '-c', script], {
    encoding: 'latin1',
  })
  return { out: result.stdout, err: result.stderr, status: result.status }
}

test('pid, arguments, and the environment octet for octet', () => {
  const { out } = chain(`export GONE=1 KEEP=$'\\xff\\xfe' DBPASS=secret; echo $$; exec "$0" "$@"`, 'echo $$; env')
  const [before, after, ...environment] = out.trim().split('\n')
  expect(after).toBe(before)
  expect(environment).toContain('RELAYCLIENT=')
  expect(environment).toContain('KEEP=\xff\xfe')
  expect(environment.filter(line => /^(GONE|DBPASS)=/.test(line))).toEqual([])
})

test('signals, limits and descriptors are as the parent gave them', () => {
  const { out } = chain(
    `ulimit -Sn 200; exec 5</etc/hostname; "$0" "$@" 7<&0; exit 0`,
    'ulimit -Sn; grep -E "SigIgn|SigBlk" /proc/self/status; for fd in 5 7; do [ -e /proc/$$/fd/$fd ] && echo has $fd; done; ls /proc/self/fd | wc -l',
  )
  expect(out).toMatch(/^200\nSigBlk:\s+0+\nSigIgn:\s+0+\nhas 5\nhas 7\n/)
})

test('the next program has no descriptor of the runtime', () => {
  const { out } = chain(`exec "$0" "$@"`, 'readlink /proc/$$/fd/*')
  expect(out).not.toMatch(/anon_inode|program\.mts/)
})

test('a client’s socket stays blocking', () => {
  const { out } = chain(`echo x | "$0" "$@"`, 'grep flags /proc/$$/fdinfo/0; cat')
  expect(out).toMatch(/^flags:\s*0\d*0\nx\n$/)
  expect(Number.parseInt(/flags:\s*(\d+)/.exec(out)?.[1] ?? '', 8) & 0o4000).toBe(0)
})

test('SIGPIPE kills the next program, as by default', () => {
  const { out } = chain(`{ "$0" "$@"; echo $? >&2; } 2>&1 1> >(true) | cat`, 'sleep 0.2; while :; do echo line; done')
  expect(out.trim()).toBe('141')
})

test('a program that cannot be run gives the reason, and the process continues', () => {
  const refused = chain('exec "$0" "$@"', '', '/etc/passwd')
  expect(refused).toMatchObject({ status: 111, err: 'cannot run /etc/passwd: execve: EACCES\n' })
  expect(chain('exec "$0" "$@"', '', '/nonexistent').err).toContain('ENOENT')
})

test('a program is found as by a shell', () => {
  expect(findProgram('sh', '/nonexistent:/bin')).toBe('/bin/sh')
  expect(findProgram('/bin/sh', '')).toBe('/bin/sh')
  expect(findProgram('no-such-program', '/bin:/usr/bin')).toBeUndefined()
  expect(findProgram('bin', '/usr')).toBeUndefined()
  expect(findProgram('passwd', '/etc')).toBeUndefined()
})
