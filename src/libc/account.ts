import koffi from 'koffi'

/** A row of the user database (passwd(5)), whatever service the host keeps it in. */
export type Account = { readonly name: string; readonly uid: number; readonly gid: number; readonly home: string }

const load = () => {
  const libc = koffi.load('libc.so.6')
  const passwd = koffi.struct({
    pw_name: 'str',
    pw_passwd: 'str',
    pw_uid: 'uint32_t',
    pw_gid: 'uint32_t',
    pw_gecos: 'str',
    pw_dir: 'str',
    pw_shell: 'str',
  })
  return {
    byName: libc.func('getpwnam', koffi.pointer(passwd), ['str']),
    byUid: libc.func('getpwuid', koffi.pointer(passwd), ['uint32_t']),
    decode: (pointer: unknown): unknown => koffi.decode(pointer, passwd),
  }
}
let libc: ReturnType<typeof load> | undefined

/** The account of that name, or undefined if the host knows none (getpwnam(3)). */
export function accountNamed(name: string): Account | undefined {
  libc ??= load()
  return read(libc.byName(name), libc.decode)
}

/** The account with that user id, or undefined (getpwuid(3)). */
export function accountWithUid(uid: number): Account | undefined {
  libc ??= load()
  return read(libc.byUid(uid), libc.decode)
}

function read(pointer: unknown, decode: (pointer: unknown) => unknown): Account | undefined {
  if (pointer === null || pointer === undefined) return undefined
  const row = decode(pointer)
  if (typeof row !== 'object' || row === null) return undefined
  const name: unknown = Reflect.get(row, 'pw_name')
  const uid: unknown = Reflect.get(row, 'pw_uid')
  const gid: unknown = Reflect.get(row, 'pw_gid')
  const home: unknown = Reflect.get(row, 'pw_dir')
  if (typeof name !== 'string' || typeof uid !== 'number' || typeof gid !== 'number') return undefined
  return { name, uid, gid, home: typeof home === 'string' ? home : '/' }
}
